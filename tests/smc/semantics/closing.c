// How connections end, and what the other side sees of it.
#include "semantics.h"

enum { ALL = POLLIN | POLLOUT | POLLRDHUP };

static volatile sig_atomic_t pipe_signals;

static void count_pipe(int signal) {
    (void)signal;
    pipe_signals++;
}

static void say_state(const char *when, int s) {
    struct pollfd entry = {.fd = s, .events = ALL};
    int ready = poll(&entry, 1, 0);
    say("%s: poll %d %s", when, ready, event_names(entry.revents));
}

static void say_error(int s) {
    int error = -1;
    MUST(getsockopt(s, SOL_SOCKET, SO_ERROR, &error, &(socklen_t){sizeof error}));
    say("SO_ERROR: %s", error_name(error));
}

static size_t read_to_the_end(int s, uint64_t seed) {
    static char bytes[65536];
    size_t total = 0;
    ssize_t got;
    while ((got = read(s, bytes, sizeof bytes)) > 0) {
        if (pattern_holds(bytes, got, total, seed) != (size_t)got)
            die("wrong bytes after %zu", total);
        total += got;
    }
    say("%zu bytes, then %zd %s", total, got, got ? error_name(errno) : "");
    return total;
}

static void send_pattern(int s, size_t length, uint64_t seed) {
    char *bytes = malloc(length);
    pattern(bytes, length, 0, seed);
    send_all(s, bytes, length);
    free(bytes);
}

static void close_abruptly(int s) {
    struct linger abrupt = {.l_onoff = 1, .l_linger = 0};
    SHOW(setsockopt(s, SOL_SOCKET, SO_LINGER, &abrupt, sizeof abrupt));
    SHOW(close(s));
}

// Everything that can be asked of a dead connection, twice.
static void say_post_mortem(int s) {
    char bytes[16];
    signal(SIGPIPE, count_pipe);
    for (int i = 0; i < 2; i++) {
        say_state("post mortem", s);
        SHOW(read(s, bytes, sizeof bytes));
        SHOW(recv(s, bytes, sizeof bytes, MSG_PEEK | MSG_DONTWAIT));
        SHOW(send(s, "x", 1, MSG_NOSIGNAL));
        SHOW(write(s, "x", 1));
        say("SIGPIPE: %d", pipe_signals);
        say_error(s);
    }
    SHOW(close(s));
}

// --- half closed

static void half_near(int s) {
    send_pattern(s, 50000, 1);
    SHOW(shutdown(s, SHUT_WR));
    SHOW(send(s, "x", 1, MSG_NOSIGNAL));
    signal(SIGPIPE, count_pipe);
    SHOW(write(s, "x", 1));
    say("SIGPIPE: %d", pipe_signals);
    // The other direction goes on.
    read_to_the_end(s, 2);
    say_state("after the end", s);
    SHOW(close(s));
}

static void half_far(int s) {
    read_to_the_end(s, 1);
    char byte;
    SHOW(read(s, &byte, 1));
    say_state("peer finished", s);
    for (int i = 0; i < 40; i++) {
        char bytes[25000];
        pattern(bytes, sizeof bytes, i * sizeof bytes, 2);
        send_all(s, bytes, sizeof bytes);
    }
    SHOW(close(s));
}

// --- half closed, and what still comes back is not read

static void unread_answer_near(int s) {
    SHOW(shutdown(s, SHUT_WR));
    meet();
    long there = 0;
    char bytes[10000];
    ssize_t got;
    while ((got = read(s, bytes, sizeof bytes)) > 0)
        there += got;
    say("the end: %zd", got);
    trade(there);
}

static void unread_answer_far(int s) {
    static char bytes[100000];
    SHOW(read(s, bytes, 1));
    MUST(setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &(struct timeval){.tv_usec = 200000}, sizeof(struct timeval)));
    long sent = 0;
    ssize_t taken;
    while ((taken = write(s, bytes, sizeof bytes)) > 0)
        sent += taken;
    say("no room: %s", taken < 0 ? error_name(errno) : "?");
    meet();
    SHOW(close(s));
    say("all of it came: %d", trade(0) == sent);
}

// --- not reading any more

static void no_reading_near(int s) {
    char bytes[16];
    SHOW(shutdown(s, SHUT_RD));
    say_state("no reading", s);
    SHOW(read(s, bytes, sizeof bytes));
    meet();
    wait_bytes(s, 4);
    // What comes all the same can be read.
    SHOW(read(s, bytes, sizeof bytes));
    SHOW(read(s, bytes, sizeof bytes));
    send_pattern(s, 30000, 3);
    SHOW(close(s));
}

static void no_reading_far(int s) {
    meet();
    SHOW(write(s, "data", 4));
    read_to_the_end(s, 3);
}

// --- neither way

static void neither_near(int s) {
    char byte;
    send_pattern(s, 1000, 4);
    SHOW(shutdown(s, SHUT_RDWR));
    SHOW(read(s, &byte, 1));
    SHOW(send(s, "x", 1, MSG_NOSIGNAL));
    say_state("shut down", s);
    meet();
    meet();
    await(s, POLLERR | POLLHUP);
    say_post_mortem(s);
}

static void neither_far(int s) {
    read_to_the_end(s, 4);
    meet();
    // Comes to an end that takes nothing any more, which says so.
    SHOW(write(s, "data", 4));
    meet();
    await(s, POLLERR | POLLHUP);
    say_post_mortem(s);
}

static void shutdown_errors(int s) {
    int fresh = new_socket(0), listener = new_listener(1), ends[2];
    MUST(pipe(ends));
    volatile int nonsense = 7;
    SHOW(shutdown(s, nonsense));
    SHOW(shutdown(fresh, SHUT_RDWR));
    SHOW(shutdown(ends[0], SHUT_RD));
    SHOW(shutdown(777, SHUT_RD));
    SHOW(shutdown(listener, SHUT_RDWR));
    SHOW(accept(listener, NULL, NULL));
    talk(s);
}

// --- closed, with everything read

static void read_after_close_near(int s) {
    send_pattern(s, 3000, 5);
    SHOW(close(s));
    char byte;
    SHOW(read(s, &byte, 1));
    SHOW(close(s));
    meet();
}

static void read_after_close_far(int s) {
    char byte;
    await(s, POLLRDHUP);
    say_state("closed, with data", s);
    read_to_the_end(s, 5);
    SHOW(read(s, &byte, 1));
    SHOW(recv(s, &byte, 1, MSG_PEEK));
    SHOW(recv(s, &byte, 1, MSG_WAITALL));
    say_state("all read", s);
    meet();
    // The first goes out, and comes back as a reset.
    SHOW(write(s, "x", 1));
    await(s, POLLERR | POLLHUP);
    say_post_mortem(s);
}

// --- SIGPIPE as it is without a handler

static void broken_pipe_near(int s) {
    char byte;
    await(s, POLLIN);
    SHOW(read(s, &byte, 1));
    SHOW(write(s, "x", 1));
    await(s, POLLERR | POLLHUP);
    SHOW(send(s, "x", 1, MSG_NOSIGNAL));
    meet();
    SHOW(write(s, "x", 1));
    say("alive");
}

static void broken_pipe_far(int s) {
    SHOW(close(s));
    meet();
}

static void broken_pipe_ignored_near(int s) {
    char byte;
    struct iovec part = {"x", 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    signal(SIGPIPE, SIG_IGN);
    SHOW(read(s, &byte, 1));
    SHOW(write(s, "x", 1));
    await(s, POLLERR | POLLHUP);
    SHOW(write(s, "x", 1));
    SHOW(writev(s, &part, 1));
    SHOW(send(s, "x", 1, 0));
    SHOW(sendmsg(s, &message, 0));
    meet();
}

// --- closed with something unread: a reset

static void unread_near(int s) {
    SHOW(write(s, "nobody reads this", 17));
    meet();
    await(s, POLLERR | POLLHUP);
    say_post_mortem(s);
}

static void unread_far(int s) {
    wait_bytes(s, 17);
    meet();
    SHOW(close(s));
}

static void unread_both_near(int s) {
    SHOW(write(s, "nobody reads this", 17));
    wait_bytes(s, 9);
    meet();
    await(s, POLLERR | POLLHUP);
    // What had come before the reset can be read.
    char bytes[16];
    SHOW(read(s, bytes, 4));
    say_post_mortem(s);
}

static void unread_both_far(int s) {
    SHOW(write(s, "last word", 9));
    wait_bytes(s, 17);
    meet();
    char bytes[4];
    SHOW(read(s, bytes, 4));
    SHOW(close(s));
}

// --- SO_LINGER

static void reset_near(int s) {
    SHOW(write(s, "word", 4));
    meet();
    meet();
    close_abruptly(s);
}

static void reset_far(int s) {
    meet();
    wait_bytes(s, 4);
    meet();
    await(s, POLLERR | POLLHUP);
    char bytes[4];
    say_state("reset, with data", s);
    SHOW(read(s, bytes, 4));
    say_post_mortem(s);
}

// A connection that is over has no peer any more.
static void say_peer(int s) {
    struct sockaddr_storage address;
    SHOW(getsockname(s, (struct sockaddr *)&address, &(socklen_t){sizeof address}));
    SHOW(getpeername(s, (struct sockaddr *)&address, &(socklen_t){sizeof address}));
    SHOW(shutdown(s, SHUT_WR));
}

static void no_peer_near(int s) {
    SHOW(shutdown(s, SHUT_WR));
    char byte;
    SHOW(read(s, &byte, 1));
    meet();
    await(s, POLLHUP);
    // Ended in good order by both.
    say_peer(s);
}

static void no_peer_far(int s) {
    char byte;
    SHOW(read(s, &byte, 1));
    SHOW(shutdown(s, SHUT_WR));
    meet();
    await(s, POLLHUP);
    say_peer(s);
}

static void no_peer_after_reset_far(int s) {
    await(s, POLLERR | POLLHUP);
    say_peer(s);
    char byte;
    SHOW(read(s, &byte, 1));
    say_peer(s);
}

static void no_peer_after_write_near(int s) {
    SHOW(close(s));
    meet();
}

static void no_peer_after_write_far(int s) {
    char byte;
    SHOW(read(s, &byte, 1));
    meet();
    say_peer(s);
    // What it is sent it has no use for, and says so.
    SHOW(send(s, "x", 1, MSG_NOSIGNAL));
    say_peer(s);
    SHOW(shutdown(s, SHUT_WR));
}

// A reset is noticed by whoever sleeps.
static void reset_sleeper_near(int s) {
    pid_t peer = trade(0);
    wait_until_asleep(peer, peer);
    close_abruptly(s);
}

static void reset_reader_far(int s) {
    char byte;
    trade(getpid());
    SHOW(read(s, &byte, 1));
    SHOW(read(s, &byte, 1));
}

static void reset_poller_far(int s) {
    struct pollfd entry = {.fd = s, .events = POLLIN};
    trade(getpid());
    SHOW(poll(&entry, 1, -1));
    say("events %s", event_names(entry.revents));
    say_error(s);
    say_error(s);
    say_state("after the error was fetched", s);
}

static void reset_epoller_far(int s) {
    int epoll = MUST(epoll_create1(0));
    struct epoll_event event = {.events = EPOLLIN | EPOLLET};
    MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, s, &event));
    trade(getpid());
    SHOW(epoll_wait(epoll, &event, 1, -1));
    say("events %s", event_names(event.events));
    char byte;
    SHOW(recv(s, &byte, 1, MSG_DONTWAIT));
    SHOW(recv(s, &byte, 1, MSG_DONTWAIT));
}

static void reset_writer_far(int s) {
    static char bytes[1 << 20];
    ssize_t sent;
    signal(SIGPIPE, SIG_IGN);
    fill_up(s);
    trade(getpid());
    while ((sent = write(s, bytes, sizeof bytes)) > 0)
        continue;
    say("blocked write: %zd %s", sent, error_name(errno));
    SHOW(write(s, bytes, 1));
}

static void linger_near(int s) {
    struct linger seconds = {.l_onoff = 1, .l_linger = 10}, got;
    SHOW(setsockopt(s, SOL_SOCKET, SO_LINGER, &seconds, sizeof seconds));
    SHOW(getsockopt(s, SOL_SOCKET, SO_LINGER, &got, &(socklen_t){sizeof got}));
    say("linger %d %d", got.l_onoff, got.l_linger);
    send_pattern(s, 1 << 20, 6);
    SHOW(close(s));
    meet();
}

static void linger_far(int s) {
    nap_ms(30);
    read_to_the_end(s, 6);
    meet();
}

// --- gone before all is read

static void exit_near(int s) {
    send_pattern(s, 150000, 7);
    meet();
}

static void exit_far(int s) {
    meet();
    nap_ms(50);
    read_to_the_end(s, 7);
    say_state("all read", s);
}

static void exit_unread_near(int s) {
    send_pattern(s, 100, 8);
    wait_bytes(s, 10);
    meet();
}

static void exit_unread_far(int s) {
    SHOW(write(s, "never read", 10));
    meet();
    await(s, POLLERR | POLLHUP);
    read_to_the_end(s, 8);
    say_post_mortem(s);
}

// --- by another thread

struct reader {
    int socket;
    pid_t thread;
    pthread_barrier_t started;
};

static void *blocked_reader(void *argument) {
    struct reader *reader = argument;
    char bytes[16];
    reader->thread = gettid();
    pthread_barrier_wait(&reader->started);
    SHOW(read(reader->socket, bytes, sizeof bytes));
    SHOW(read(reader->socket, bytes, sizeof bytes));
    return NULL;
}

static pthread_t start_reader(struct reader *reader) {
    pthread_t thread;
    pthread_barrier_init(&reader->started, NULL, 2);
    pthread_create(&thread, NULL, blocked_reader, reader);
    pthread_barrier_wait(&reader->started);
    wait_until_asleep(getpid(), reader->thread);
    return thread;
}

static void shut_by_other_near(int s) {
    struct reader reader = {.socket = s};
    pthread_t thread = start_reader(&reader);
    shutdown(s, SHUT_RD);
    pthread_join(thread, NULL);
    meet();
    SHOW(write(s, "still goes", 10));
    SHOW(close(s));
}

static void shut_by_other_far(int s) {
    char bytes[16];
    meet();
    SHOW(recv(s, bytes, 10, MSG_WAITALL));
    SHOW(read(s, bytes, 1));
}

static void shut_both_by_other_near(int s) {
    struct reader reader = {.socket = s};
    pthread_t thread = start_reader(&reader);
    shutdown(s, SHUT_RDWR);
    pthread_join(thread, NULL);
    meet();
}

static void shut_both_by_other_far(int s) {
    char byte;
    SHOW(read(s, &byte, 1));
    meet();
}

// The number goes away, the call that is under way goes on.
static void closed_by_other_near(int s) {
    struct reader reader = {.socket = s};
    pthread_t thread = start_reader(&reader);
    if (close(s) < 0)
        die("close: %s", error_name(errno));
    meet();
    pthread_join(thread, NULL);
    meet();
}

static void closed_by_other_far(int s) {
    char byte;
    meet();
    SHOW(write(s, "data", 4));
    meet();
    await(s, POLLIN);
    SHOW(read(s, &byte, 1));
}

// A connection is moved while one thread is still sending over TCP, and another one ends the sending.
enum { BLOCKED = 32 << 20, GREETINGS = 60, ANSWER = 300000 };

struct sender {
    int socket;
    char *bytes;
    long sent;
};

static void *send_blocked(void *argument) {
    struct sender *sender = argument;
    sender->sent = send(sender->socket, sender->bytes, BLOCKED, MSG_NOSIGNAL);
    return NULL;
}

static void shut_blocked_near(int unused) {
    (void)unused;
    int s = connect_to_far();
    struct sender sender = {.socket = s, .bytes = malloc(BLOCKED)};
    pthread_t thread;
    pattern(sender.bytes, BLOCKED, 0, 1);
    pthread_create(&thread, NULL, send_blocked, &sender);
    meet();
    for (int i = 0; i < GREETINGS; i++) {
        char greeting[10];
        receive_exactly(s, greeting, sizeof greeting);
        trade(i);
    }
    nap_ms(100);
    SHOW(shutdown(s, SHUT_WR));
    pthread_join(thread, NULL);
    free(sender.bytes);
    say("all sent that arrived: %d", trade(sender.sent) == sender.sent);
    read_to_the_end(s, 2);
    SHOW(close(s));
}

static void shut_blocked_far(int listener) {
    static char bytes[65536];
    long total = 0;
    ssize_t got;
    int s = MUST(accept(listener, NULL, NULL));
    meet();
    nap_ms(100);
    for (int i = 0; i < GREETINGS; i++) {
        send_all(s, "greetings", 10);
        trade(i);
    }
    nap_ms(300);
    for (; (got = read(s, bytes, sizeof bytes)) > 0; total += got)
        if (pattern_holds(bytes, got, total, 1) != (size_t)got)
            die("wrong bytes after %ld", total);
    say("then %zd, all that was sent: %d", got, trade(total) == total);
    send_pattern(s, ANSWER, 2);
    SHOW(close(s));
}

const struct scenario closing_scenarios[] = {
    {"half-close", CONNECTED, half_near, half_far},
    {"unread-answer", CONNECTED, unread_answer_near, unread_answer_far},
    {"shutdown-read", CONNECTED, no_reading_near, no_reading_far},
    {"shutdown-both", CONNECTED, neither_near, neither_far},
    {"shutdown-while-moved", LISTENING, shut_blocked_near, shut_blocked_far},
    {"shutdown-errors", CONNECTED, shutdown_errors, shutdown_errors},
    {"close-all-read", CONNECTED, read_after_close_near, read_after_close_far},
    {"broken-pipe-kills", CONNECTED, broken_pipe_near, broken_pipe_far},
    {"broken-pipe-ignored", CONNECTED, broken_pipe_ignored_near, broken_pipe_far},
    {"close-unread", CONNECTED, unread_near, unread_far},
    {"close-unread-both", CONNECTED, unread_both_near, unread_both_far},
    {"reset", CONNECTED, reset_near, reset_far},
    {"no-peer", CONNECTED, no_peer_near, no_peer_far},
    {"no-peer-after-reset", CONNECTED, close_abruptly, no_peer_after_reset_far},
    {"no-peer-after-write", CONNECTED, no_peer_after_write_near, no_peer_after_write_far},
    {"reset-reader", CONNECTED, reset_sleeper_near, reset_reader_far},
    {"reset-poller", CONNECTED, reset_sleeper_near, reset_poller_far},
    {"reset-epoller", CONNECTED, reset_sleeper_near, reset_epoller_far},
    {"reset-writer", CONNECTED, reset_sleeper_near, reset_writer_far},
    {"linger", CONNECTED, linger_near, linger_far},
    {"exit-with-data-under-way", CONNECTED, exit_near, exit_far},
    {"exit-with-unread-data", CONNECTED, exit_unread_near, exit_unread_far},
    {"shutdown-by-another-thread", CONNECTED, shut_by_other_near, shut_by_other_far},
    {"shutdown-both-by-another-thread", CONNECTED, shut_both_by_other_near, shut_both_by_other_far},
    {"close-by-another-thread", CONNECTED, closed_by_other_near, closed_by_other_far},
    {NULL},
};
