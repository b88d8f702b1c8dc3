// poll, ppoll, select and pselect, over sockets and over what stands beside them.
#include "semantics.h"

enum { ALL = POLLIN | POLLPRI | POLLOUT | POLLRDHUP | POLLRDNORM | POLLWRNORM | POLLRDBAND | POLLWRBAND };

static void say_poll(const char *when, int s, short events) {
    struct pollfd entry = {.fd = s, .events = events};
    int ready = poll(&entry, 1, 0);
    say("%s: %d %s", when, ready, event_names(entry.revents));
}

// --- what poll reports

static void events_near(int s) {
    meet();
    SHOW(write(s, "data", 4));
    meet();
    meet();
    talk(s);
    SHOW(shutdown(s, SHUT_WR));
    meet();
    meet();
    char byte;
    SHOW(read(s, &byte, 1));
}

static void events_far(int s) {
    char bytes[8];
    say_poll("idle", s, ALL);
    say_poll("idle, asked to read", s, POLLIN);
    say_poll("idle, asked for nothing", s, 0);
    meet();
    await(s, POLLIN);
    say_poll("data", s, ALL);
    say_poll("data, asked to read", s, POLLIN);
    say_poll("data, asked to write", s, POLLOUT);
    say_poll("data, asked for nothing", s, 0);
    meet();
    SHOW(read(s, bytes, 3));
    say_poll("a byte left", s, ALL);
    SHOW(read(s, bytes, 3));
    say_poll("none left", s, ALL);
    meet();
    talk(s);
    meet();
    await(s, POLLRDHUP);
    say_poll("peer finished", s, ALL);
    say_poll("peer finished, asked to write", s, POLLOUT);
    say_poll("peer finished, asked for nothing", s, 0);
    SHOW(read(s, bytes, 8));
    say_poll("end read", s, ALL);
    SHOW(shutdown(s, SHUT_WR));
    await(s, POLLHUP);
    say_poll("both finished", s, ALL);
    say_poll("both finished, asked for nothing", s, 0);
    meet();
}

// --- how long

static void timeouts(int s) {
    struct pollfd entry = {.fd = s, .events = POLLIN};
    struct timespec fifty = {0, 50000000}, zero = {0, 0};
    uint64_t start = now_ms();
    SHOW(poll(&entry, 1, 50));
    say("took 50 ms: %d", now_ms() - start >= 50);
    start = now_ms();
    SHOW(ppoll(&entry, 1, &fifty, NULL));
    say("took 50 ms: %d, is as it was: %ld", now_ms() - start >= 50, fifty.tv_nsec);
    start = now_ms();
    fd_set set;
    FD_ZERO(&set);
    FD_SET(s, &set);
    struct timeval wait = {0, 50000};
    SHOW(select(s + 1, &set, NULL, NULL, &wait));
    say("took 50 ms: %d, left: %ld, set: %d", now_ms() - start >= 50, (long)wait.tv_usec, !!FD_ISSET(s, &set));
    FD_SET(s, &set);
    SHOW(pselect(s + 1, &set, NULL, NULL, &zero, NULL));
    say("set: %d", !!FD_ISSET(s, &set));
    SHOW(poll(&entry, 1, 0));
    SHOW(poll(NULL, 0, 10));
    SHOW(select(0, NULL, NULL, NULL, &(struct timeval){0, 1000}));
    struct timespec negative = {-1, 0};
    SHOW(ppoll(&entry, 1, &negative, NULL));
    SHOW(select(s + 1, NULL, NULL, NULL, &(struct timeval){-1, 0}));
    SHOW(select(-1, NULL, NULL, NULL, &wait));
    entry.fd = -1;
    entry.revents = 99;
    SHOW(poll(&entry, 1, 0));
    say("events of no descriptor: %s", event_names(entry.revents));
    talk(s);
}

// --- woken out of the wait

static void wake_near(int s) {
    for (int i = 0; i < 6; i++) {
        pid_t peer = trade(0);
        wait_until_asleep(peer, peer);
        SHOW(write(s, "wake", 4));
    }
    talk(s);
}

static void wake_far(int s) {
    char bytes[8];
    struct pollfd entry = {.fd = s, .events = POLLIN};
    struct timespec long_time = {20, 0};
    fd_set set;
    trade(getpid());
    SHOW(poll(&entry, 1, -1));
    SHOW(read(s, bytes, 8));
    trade(getpid());
    SHOW(poll(&entry, 1, 20000));
    SHOW(read(s, bytes, 8));
    trade(getpid());
    SHOW(ppoll(&entry, 1, &long_time, NULL));
    SHOW(read(s, bytes, 8));
    trade(getpid());
    SHOW(ppoll(&entry, 1, NULL, NULL));
    SHOW(read(s, bytes, 8));
    for (int i = 0; i < 2; i++) {
        trade(getpid());
        FD_ZERO(&set);
        FD_SET(s, &set);
        struct timeval wait = {20, 0};
        if (i == 0)
            SHOW(select(s + 1, &set, NULL, NULL, &wait));
        else
            SHOW(pselect(s + 1, &set, NULL, NULL, NULL, NULL));
        say("set: %d, time passed: %d", !!FD_ISSET(s, &set), i || wait.tv_sec < 20);
        SHOW(read(s, bytes, 8));
    }
    talk(s);
}

// --- among other descriptors

static void say_all(struct pollfd *entries, int count, int timeout) {
    int ready = poll(entries, count, timeout);
    char text[256] = "";
    for (int i = 0, used = 0; i < count; i++)
        used += snprintf(text + used, sizeof text - used, " [%d] %s", i, event_names(entries[i].revents));
    say("%d:%s", ready, text);
}

static void mixed_near(int s) {
    meet();
    SHOW(write(s, "data", 4));
    meet();
    talk(s);
}

static void mixed_far(int s) {
    int ends[2], file = fileno(tmpfile()), listener = new_listener(5), closed = dup(s);
    MUST(pipe(ends));
    close(closed);
    struct pollfd entries[8] = {
        {s, POLLIN, 0},    {ends[0], POLLIN, 0}, {file, POLLIN | POLLOUT, 0}, {listener, POLLIN, 0},
        {closed, POLLIN, 0}, {-1, POLLIN, 0},    {s, POLLOUT, 0},             {ends[1], POLLOUT, 0},
    };
    say_all(entries, 8, 0);
    struct pollfd quiet[3] = {{s, POLLIN, 0}, {ends[0], POLLIN, 0}, {listener, POLLIN, 0}};
    say_all(quiet, 3, 20);
    SHOW(write(ends[1], "p", 1));
    say_all(quiet, 3, -1);
    meet();
    await(s, POLLIN);
    say_all(quiet, 3, -1);
    char bytes[8];
    SHOW(read(ends[0], bytes, 8));
    int client = connect_to(port_of(listener));
    say_all(quiet, 3, -1);
    SHOW(read(s, bytes, 8));
    say_all(quiet, 3, -1);
    say_all(entries, 8, -1);
    int accepted = MUST(accept(listener, NULL, NULL));
    say_all(quiet, 3, 0);
    talk_to_self(client, accepted, warm_rounds());
    SHOW(write(client, "more", 4));
    await(accepted, POLLIN);
    struct pollfd sockets[4] = {
        {s, POLLIN, 0}, {client, POLLIN, 0}, {accepted, POLLIN, 0}, {accepted, POLLIN | POLLOUT, 0},
    };
    say_all(sockets, 4, -1);
    meet();
    talk(s);
}

// The other descriptor wakes a process that waits for both.
static void *write_later(void *argument) {
    int *pair = argument;
    wait_until_asleep(getpid(), getpid());
    if (write(pair[1], "p", 1) != 1)
        die("write into a pipe");
    return NULL;
}

static void pipe_wakes(int s) {
    int ends[2];
    char bytes[8];
    MUST(pipe(ends));
    for (int i = 0; i < 4; i++) {
        pthread_t thread;
        pthread_create(&thread, NULL, write_later, ends);
        struct pollfd entries[2] = {{s, POLLIN, 0}, {ends[0], POLLIN, 0}};
        fd_set set;
        FD_ZERO(&set);
        FD_SET(s, &set);
        FD_SET(ends[0], &set);
        int highest = (s > ends[0] ? s : ends[0]) + 1;
        if (i == 0)
            SHOW(poll(entries, 2, -1));
        else if (i == 1)
            SHOW(ppoll(entries, 2, NULL, NULL));
        else if (i == 2)
            SHOW(select(highest, &set, NULL, NULL, NULL));
        else
            SHOW(pselect(highest, &set, NULL, NULL, &(struct timespec){20, 0}, NULL));
        say("poll: %d %d, select: %d %d", !!entries[0].revents, !!entries[1].revents, i > 1 && FD_ISSET(s, &set),
            i > 1 && FD_ISSET(ends[0], &set));
        SHOW(read(ends[0], bytes, 8));
        pthread_join(thread, NULL);
    }
    talk(s);
}

// A hundred pipes and a socket far up.
static void crowd_near(int s) {
    pid_t peer = trade(0);
    wait_until_asleep(peer, peer);
    SHOW(write(s, "data", 4));
    talk(s);
}

static void crowd_far(int s) {
    struct pollfd entries[101];
    int ends[2], high = MUST(fcntl(s, F_DUPFD, 600));
    for (int i = 0; i < 100; i++) {
        MUST(pipe(ends));
        entries[i] = (struct pollfd){ends[0], POLLIN, 0};
    }
    entries[100] = (struct pollfd){high, POLLIN, 0};
    trade(getpid());
    SHOW(poll(entries, 101, -1));
    say("of the pipe: %s, of the socket: %s", event_names(entries[99].revents), event_names(entries[100].revents));
    fd_set set;
    FD_ZERO(&set);
    for (int i = 0; i < 101; i++)
        FD_SET(entries[i].fd, &set);
    SHOW(select(high + 1, &set, NULL, NULL, NULL));
    say("pipe %d, socket %d", !!FD_ISSET(entries[99].fd, &set), !!FD_ISSET(high, &set));
    char bytes[8];
    SHOW(read(high, bytes, 8));
    talk(s);
}

// --- select

static void select_near(int s) {
    meet();
    SHOW(write(s, "data", 4));
    meet();
    talk(s);
    SHOW(shutdown(s, SHUT_WR));
    meet();
}

static void say_select(const char *when, int s, int other) {
    fd_set in, out, except;
    FD_ZERO(&in);
    FD_ZERO(&out);
    FD_ZERO(&except);
    FD_SET(s, &in);
    FD_SET(s, &out);
    FD_SET(s, &except);
    FD_SET(other, &in);
    int highest = s > other ? s : other;
    int ready = select(highest + 1, &in, &out, &except, &(struct timeval){0, 0});
    say("%s: %d, in %d, out %d, except %d, other %d", when, ready, !!FD_ISSET(s, &in), !!FD_ISSET(s, &out),
        !!FD_ISSET(s, &except), !!FD_ISSET(other, &in));
}

static void select_far(int s) {
    char bytes[8];
    int ends[2];
    MUST(pipe(ends));
    say_select("idle", s, ends[0]);
    meet();
    await(s, POLLIN);
    say_select("data", s, ends[0]);
    SHOW(write(ends[1], "p", 1));
    say_select("data in both", s, ends[0]);
    SHOW(read(s, bytes, 8));
    say_select("data in the pipe", s, ends[0]);
    fd_set set;
    FD_ZERO(&set);
    FD_SET(s, &set);
    FD_SET(ends[0], &set);
    // What is not below the first argument is not looked at.
    SHOW(select(0, &set, NULL, NULL, &(struct timeval){0, 0}));
    SHOW(close(ends[0]));
    FD_SET(ends[0], &set);
    FD_SET(s, &set);
    SHOW(select(ends[0] + 1, &set, NULL, NULL, &(struct timeval){0, 0}));
    say("set after the error: %d", !!FD_ISSET(s, &set));
    meet();
    talk(s);
    meet();
    await(s, POLLIN);
    say_select("end", s, ends[1]);
    SHOW(read(s, bytes, 8));
}

// --- until there is room

static void room_near(int s) {
    size_t sent = fill_up(s);
    say_poll("full", s, ALL);
    fd_set set;
    FD_ZERO(&set);
    FD_SET(s, &set);
    SHOW(select(s + 1, NULL, &set, NULL, &(struct timeval){0, 1000}));
    struct pollfd entry = {.fd = s, .events = POLLOUT};
    trade(sent);
    trade(getpid());
    SHOW(poll(&entry, 1, -1));
    say("events %s", event_names(entry.revents));
    say("room: %d", write(s, "x", 1) == 1);
    FD_SET(s, &set);
    SHOW(select(s + 1, NULL, &set, NULL, NULL));
    meet();
    talk(s);
}

static void room_far(int s) {
    size_t total = trade(0);
    pid_t peer = trade(0);
    wait_until_asleep(peer, peer);
    char *bytes = malloc(total + 1);
    receive_exactly(s, bytes, total + 1);
    say("last byte %c", bytes[total]);
    meet();
    talk(s);
}

// --- some of them are moved meanwhile: what can be read can be read without waiting

enum { PASSES = 40, AT_ONCE = 3, MESSAGES = 90 };

static void moving_near(int s) {
    in_port_t port = trade(0);
    for (int pass = 0; pass < PASSES; pass++) {
        int others[AT_ONCE];
        char bytes[4];
        for (int i = 0; i < AT_ONCE; i++)
            others[i] = connect_to(port);
        for (int i = 0; i < MESSAGES; i++) {
            send_all(others[i % AT_ONCE], "data", 4);
            receive_exactly(others[i % AT_ONCE], bytes, 4);
        }
        for (int i = 0; i < AT_ONCE; i++)
            MUST(close(others[i]));
    }
    talk(s);
}

// Those that are told of; a call that waits for what is not there waits for ever.
static int answer_readable(const int *others, bool by_select) {
    struct pollfd entries[AT_ONCE];
    fd_set set;
    int answered = 0, highest = 0;
    char bytes[4];
    FD_ZERO(&set);
    for (int i = 0; i < AT_ONCE; i++) {
        entries[i] = (struct pollfd){.fd = others[i], .events = POLLIN};
        FD_SET(others[i], &set);
        highest = others[i] > highest ? others[i] : highest;
    }
    if (by_select)
        MUST(select(highest + 1, &set, NULL, NULL, NULL));
    else
        MUST(poll(entries, AT_ONCE, -1));
    for (int i = 0; i < AT_ONCE; i++)
        if (by_select ? FD_ISSET(others[i], &set) : entries[i].revents & POLLIN) {
            receive_exactly(others[i], bytes, 4);
            send_all(others[i], bytes, 4);
            answered++;
        }
    return answered;
}

static void moving_far(int s) {
    int listener = new_listener(AT_ONCE);
    trade(port_of(listener));
    for (int pass = 0; pass < PASSES; pass++) {
        int others[AT_ONCE];
        for (int i = 0; i < AT_ONCE; i++)
            others[i] = MUST(accept(listener, NULL, NULL));
        for (int answered = 0; answered < MESSAGES;)
            answered += answer_readable(others, pass % 2);
        for (int i = 0; i < AT_ONCE; i++)
            MUST(close(others[i]));
    }
    say("answered");
    talk(s);
}

const struct scenario ready_scenarios[] = {
    {"poll-events", CONNECTED, events_near, events_far},
    {"poll-timeouts", CONNECTED, timeouts, timeouts},
    {"poll-woken", CONNECTED, wake_near, wake_far},
    {"poll-mixed", CONNECTED, mixed_near, mixed_far},
    {"poll-woken-by-a-pipe", CONNECTED, pipe_wakes, pipe_wakes},
    {"poll-crowd", CONNECTED, crowd_near, crowd_far},
    {"select", CONNECTED, select_near, select_far},
    {"poll-until-room", CONNECTED, room_near, room_far},
    {"poll-while-some-are-moved", CONNECTED, moving_near, moving_far},
    {NULL},
};
