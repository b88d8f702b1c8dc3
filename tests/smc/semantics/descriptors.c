// Descriptors: their numbers, copies, flags, and what ioctl says about a socket.
#include "semantics.h"

#include <linux/sockios.h>

// --- numbers: the lowest that is free, as ever

static void numbers_near(int s) {
    int listener = MUST(trade(0));
    int one = MUST(connect_to(listener));
    int other = MUST(connect_to(listener));
    say("next to each other: %d", other == one + 1);
    warm(one, true);
    warm(other, true);
    int ends[2];
    MUST(pipe(ends));
    say("and so are these: %d %d", ends[0] - other, ends[1] - other);
    SHOW(close(one));
    say("its number is free: %d", (int)MUST(dup(0)) - one);
    SHOW(close(other));
    talk(s);
}

static void numbers_far(int s) {
    int listener = new_listener(5);
    trade(port_of(listener));
    int one = MUST(accept(listener, NULL, NULL));
    int other = MUST(accept(listener, NULL, NULL));
    say("next to each other: %d %d", one - listener, other - one);
    warm(one, false);
    warm(other, false);
    int file = MUST(open("/dev/null", O_RDONLY));
    say("and so is this: %d", file - other);
    talk(s);
}

// Every number below a hundred that is open, as far as a program can see.
static void open_numbers(int s) {
    int count = 0;
    if (is_near())
        s = connect_to_far();
    else
        s = MUST(accept(s, NULL, NULL));
    rounds(s, is_near(), 80);
    for (int fd = 0; fd < 100; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    say("open: %d", count);
    talk(s);
}

// --- copies

static void copies_near(int s) {
    char byte;
    for (int i = 0; i < 6; i++) {
        send_all(s, "data", 4);
        receive_exactly(s, &byte, 1);
    }
    talk(s);
    SHOW(read(s, &byte, 1));
}

static void serve(int fd) {
    char bytes[4];
    receive_exactly(fd, bytes, 4);
    send_all(fd, "k", 1);
}

static void copies_far(int s) {
    int copy = MUST(dup(s));
    serve(copy);
    say("dup2: %d", dup2(s, 300) == 300);
    serve(300);
    say("dup2 onto itself: %d", dup2(s, s) == s);
    say("dup3: %d", dup3(s, 301, O_CLOEXEC) == 301);
    SHOW(dup3(s, s, 0));
    SHOW(fcntl(301, F_GETFD));
    serve(301);
    SHOW(close(s));
    serve(copy);
    say("F_DUPFD: %d", fcntl(copy, F_DUPFD, 310) == 310);
    say("F_DUPFD_CLOEXEC: %d", fcntl(copy, F_DUPFD_CLOEXEC, 310) == 311);
    SHOW(fcntl(311, F_GETFD));
    serve(310);
    serve(311);
    SHOW(close(copy));
    SHOW(close(300));
    SHOW(close(301));
    SHOW(close(310));
    SHOW(dup(s));
    SHOW(dup2(777, 5));
    volatile int far_too_high = 1 << 30;
    SHOW(fcntl(311, F_DUPFD, far_too_high));
    talk(311);
    // The last one closes the connection.
    SHOW(close(311));
}

// Data that was read in part through one copy goes on through the other.
static void shared_position_near(int s) {
    send_all(s, "0123456789", 10);
    meet();
    SHOW(fcntl(s, F_GETFL) & O_NONBLOCK);
    talk(s);
}

static void shared_position_far(int s) {
    char bytes[10];
    int copy = MUST(dup(s));
    wait_bytes(s, 10);
    say_bytes("one", bytes, read(s, bytes, 3));
    say_bytes("copy", bytes, read(copy, bytes, 3));
    say_bytes("one", bytes, read(s, bytes, 10));
    // So do the flags of the open file; those of the descriptor are its own.
    set_nonblocking(copy, true);
    SHOW(read(s, bytes, 1));
    say("non-blocking: %d", !!(fcntl(s, F_GETFL) & O_NONBLOCK));
    set_nonblocking(s, false);
    SHOW(fcntl(copy, F_SETFD, FD_CLOEXEC));
    SHOW(fcntl(s, F_GETFD));
    meet();
    talk(copy);
}

// A connection is copied over one that is open: that one is closed by it.
static void over_another_near(int s) {
    int port = trade(0);
    int other = connect_to(port);
    warm(other, true);
    meet();
    char byte;
    SHOW(read(other, &byte, 1));
    talk(s);
}

static void over_another_far(int s) {
    int listener = new_listener(5);
    trade(port_of(listener));
    int other = MUST(accept(listener, NULL, NULL));
    warm(other, false);
    say("dup2: %d", dup2(s, other) == other);
    SHOW(close(s));
    meet();
    talk(other);
}

// --- blocking and not, in mid stream

static void blocking_near(int s) {
    meet();
    send_all(s, "one", 3);
    meet();
    pid_t peer = trade(0);
    wait_until_asleep(peer, peer);
    send_all(s, "two", 3);
    meet();
    meet();
    talk(s);
}

static void blocking_far(int s) {
    char bytes[8];
    int on = 1, off = 0;
    SHOW(fcntl(s, F_GETFL) & (O_ACCMODE | O_NONBLOCK | O_APPEND));
    SHOW(fcntl(s, F_SETFL, O_NONBLOCK));
    SHOW(fcntl(s, F_GETFL) & (O_ACCMODE | O_NONBLOCK | O_APPEND));
    SHOW(read(s, bytes, 8));
    meet();
    await(s, POLLIN);
    SHOW(read(s, bytes, 8));
    SHOW(read(s, bytes, 8));
    SHOW(fcntl(s, F_SETFL, 0));
    meet();
    trade(getpid());
    SHOW(read(s, bytes, 8));
    SHOW(ioctl(s, FIONBIO, &on));
    say("non-blocking: %d", !!(fcntl(s, F_GETFL) & O_NONBLOCK));
    SHOW(read(s, bytes, 8));
    SHOW(ioctl(s, FIONBIO, &off));
    say("non-blocking: %d", !!(fcntl(s, F_GETFL) & O_NONBLOCK));
    SHOW(fcntl(s, F_SETFL, O_NONBLOCK | O_ASYNC));
    say("flags: %#x", fcntl(s, F_GETFL) & (O_NONBLOCK | O_ASYNC));
    SHOW(fcntl(s, F_SETFL, 0));
    SHOW(ioctl(s, FIOCLEX));
    SHOW(fcntl(s, F_GETFD));
    SHOW(ioctl(s, FIONCLEX));
    SHOW(fcntl(s, F_GETFD));
    meet();
    meet();
    talk(s);
}

// --- counts

static void say_readable(const char *when, int s) {
    int count = -1;
    MUST(ioctl(s, FIONREAD, &count));
    say("%s: %d", when, count);
}

static void counts_near(int s) {
    char bytes[5000];
    memset(bytes, 'x', sizeof bytes);
    send_all(s, bytes, 3000);
    meet();
    meet();
    send_all(s, bytes, 5000);
    // The other kernel has all, even if the other program has read nothing.
    int unsent = -1;
    for (int i = 0; i < 5000 && unsent != 0; i++) {
        MUST(ioctl(s, SIOCOUTQ, &unsent));
        nap_ms(1);
    }
    say("SIOCOUTQ comes to %d", unsent);
    SHOW(ioctl(s, SIOCOUTQNSD, &unsent));
    say("not sent: %d", unsent);
    meet();
    talk(s);
    say_readable("nothing", s);
}

static void counts_far(int s) {
    char bytes[5000];
    meet();
    wait_bytes(s, 3000);
    say_readable("all", s);
    SHOW(read(s, bytes, 1000));
    say_readable("after a read", s);
    SHOW(recv(s, bytes, 1000, MSG_PEEK));
    say_readable("after a look", s);
    SHOW(read(s, bytes, 5000));
    say_readable("none", s);
    meet();
    meet();
    wait_bytes(s, 5000);
    say_readable("all", s);
    receive_exactly(s, bytes, 5000);
    SHOW(ioctl(s, 0x12345678, NULL));
    talk(s);
    say_readable("nothing", s);
}

// --- closed by ranges

static void ranges_near(int s) {
    char byte;
    SHOW(read(s, &byte, 1));
}

static void ranges_far(int s) {
    int high = MUST(fcntl(s, F_DUPFD, 400));
    SHOW(close_range(high, high + 50, CLOSE_RANGE_CLOEXEC));
    SHOW(fcntl(high, F_GETFD));
    SHOW(close_range(3, 399, 0));
    SHOW(write(s, "x", 1));
    say("the copy lives: %d", fcntl(high, F_GETFL) >= 0);
    // A daemon that closes all it does not know.
    closefrom(1000);
    for (int fd = 400; fd < 450; fd++)
        close(fd);
    SHOW(write(high, "x", 1));
    volatile unsigned first = 5, last = 4;
    SHOW(close_range(first, last, 0));
}

// Numbers that are used again and again for different things.
static void reuse_near(int s) {
    int port = trade(0);
    for (int i = 0; i < 30; i++) {
        int connection = connect_to(port);
        rounds(connection, true, 8);
        MUST(close(connection));
        int ends[2];
        MUST(pipe(ends));
        if (ends[0] != connection && i > 0)
            die("the number is not free in round %d", i);
        if (write(ends[1], "pipe", 4) != 4)
            die("pipe");
        char bytes[8];
        if (read(ends[0], bytes, 8) != 4)
            die("read from a pipe in round %d: %s", i, error_name(errno));
        close(ends[0]);
        close(ends[1]);
    }
    talk(s);
}

static void reuse_far(int s) {
    int listener = new_listener(5);
    trade(port_of(listener));
    for (int i = 0; i < 30; i++) {
        int connection = MUST(accept(listener, NULL, NULL));
        rounds(connection, false, 8);
        char byte;
        ssize_t end = read(connection, &byte, 1);
        if (end != 0)
            die("no end in round %d: %zd %s", i, end, end < 0 ? error_name(errno) : "");
        MUST(close(connection));
    }
    talk(s);
}

const struct scenario descriptor_scenarios[] = {
    {"numbers", CONNECTED, numbers_near, numbers_far},
    {"open-numbers", LISTENING, open_numbers, open_numbers},
    {"copies", CONNECTED, copies_near, copies_far},
    {"copies-share", CONNECTED, shared_position_near, shared_position_far},
    {"copy-over-another", CONNECTED, over_another_near, over_another_far},
    {"blocking-on-and-off", CONNECTED, blocking_near, blocking_far},
    {"counts", CONNECTED, counts_near, counts_far},
    {"close-range", CONNECTED, ranges_near, ranges_far},
    {"numbers-used-again", CONNECTED, reuse_near, reuse_far},
    {NULL},
};
