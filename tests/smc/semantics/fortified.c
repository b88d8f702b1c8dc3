// The forms of the calls that fortified programs use: by their names, so that it does not hang on the compiler.
#include "semantics.h"

extern ssize_t __read_chk(int, void *, size_t, size_t);
extern ssize_t __recv_chk(int, void *, size_t, size_t, int);
extern ssize_t __recvfrom_chk(int, void *, size_t, size_t, int, struct sockaddr *, socklen_t *);
extern int __poll_chk(struct pollfd *, nfds_t, int, size_t);
extern int __ppoll_chk(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *, size_t);
extern long __fdelt_chk(long);

static void fortified_near(int s) {
    for (int i = 0; i < 4; i++) {
        meet();
        send_all(s, "some bytes", 10);
    }
    talk(s);
}

static void fortified_far(int s) {
    char bytes[64];
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    struct pollfd entry = {.fd = s, .events = POLLIN};
    meet();
    SHOW(__poll_chk(&entry, 1, 5000, sizeof entry));
    wait_bytes(s, 10);
    say_bytes("__read_chk", bytes, __read_chk(s, bytes, 64, sizeof bytes));
    meet();
    SHOW(__ppoll_chk(&entry, 1, &(struct timespec){5, 0}, NULL, sizeof entry));
    wait_bytes(s, 10);
    say_bytes("__recv_chk", bytes, __recv_chk(s, bytes, 64, sizeof bytes, MSG_PEEK));
    say_bytes("__recv_chk", bytes, __recv_chk(s, bytes, 64, sizeof bytes, 0));
    meet();
    wait_bytes(s, 10);
    say_bytes("__recvfrom_chk", bytes,
              __recvfrom_chk(s, bytes, 64, sizeof bytes, 0, (struct sockaddr *)&address, &length));
    say("address length %u", length);
    SHOW(__poll_chk(&entry, 1, 0, sizeof entry));
    SHOW(__recv_chk(s, bytes, 64, sizeof bytes, MSG_DONTWAIT));
    say("__fdelt_chk: %ld", __fdelt_chk(100));
    meet();
    fd_set set;
    FD_ZERO(&set);
    volatile int number = s;
    FD_SET(number, &set);
    SHOW(select(number + 1, &set, NULL, NULL, &(struct timeval){5, 0}));
    say("set %d", !!FD_ISSET(number, &set));
    // And as the compiler has it: it knows the size of the array but not of the read.
    volatile size_t size = 64;
    wait_bytes(s, 10);
    say_bytes("read", bytes, read(s, bytes, size));
    talk(s);
}

// What would overflow ends the process, before anything is read. The compiler is not to know.
static volatile size_t too_large = 64, too_many = 4;

static void overflow_near(int s) {
    send_all(s, "some bytes", 10);
    meet();
    char byte;
    await(s, POLLHUP | POLLERR | POLLIN);
    SHOW(read(s, &byte, 1));
}

static void overflow_read_far(int s) {
    char bytes[8];
    wait_bytes(s, 10);
    fclose(stderr);
    meet();
    say("%zd", __read_chk(s, bytes, too_large, sizeof bytes));
}

static void overflow_recv_far(int s) {
    char bytes[8];
    wait_bytes(s, 10);
    fclose(stderr);
    meet();
    say("%zd", __recv_chk(s, bytes, too_large, sizeof bytes, 0));
}

static void overflow_poll_far(int s) {
    struct pollfd entry = {.fd = s, .events = POLLIN};
    wait_bytes(s, 10);
    fclose(stderr);
    meet();
    SHOW(__poll_chk(&entry, too_many, 0, sizeof entry));
}

const struct scenario fortified_scenarios[] = {
    {"fortified", CONNECTED, fortified_near, fortified_far},
    {"overflow-in-read", CONNECTED, overflow_near, overflow_read_far},
    {"overflow-in-recv", CONNECTED, overflow_near, overflow_recv_far},
    {"overflow-in-poll", CONNECTED, overflow_near, overflow_poll_far},
    {NULL},
};
