// epoll and numbers that are used again while what they stood for goes on elsewhere.
#include "semantics.h"

static void say_wait(const char *when, int epoll, int timeout) {
    struct epoll_event events[8];
    int count = epoll_wait(epoll, events, 8, timeout);
    say("%s: %d %s %lld", when, count, count > 0 ? event_names(events[0].events) : "-",
        count > 0 ? (long long)events[0].data.u64 : -1);
}

// Adds `s`, reads what comes, and removes it.
static void watch_for_a_while(int epoll, int s) {
    char bytes[8];
    SHOW(control(epoll, EPOLL_CTL_ADD, s, EPOLLIN, 1));
    meet();
    say_wait("first connection", epoll, -1);
    SHOW(read(s, bytes, 8));
    SHOW(control(epoll, EPOLL_CTL_DEL, s, 0, 0));
}

// A child that has all there is until it is told to end.
static pid_t start_child(int ends[2]) {
    MUST(pipe(ends));
    pid_t child = MUST(fork());
    if (child == 0) {
        close(ends[1]);
        _exit(read(ends[0], &(char){0}, 1) != 0);
    }
    return child;
}

static void end_child(pid_t child, int ends[2]) {
    close(ends[0]);
    close(ends[1]);
    MUST(waitpid(child, NULL, 0));
}

static int accept_another(int listener) {
    int s = MUST(accept(listener, NULL, NULL));
    warm(s, false);
    settle(s);
    return s;
}

static int connect_another(int port) {
    int s = connect_to(port);
    warm(s, true);
    settle(s);
    return s;
}

// --- a child has what the number stood for

static void child_near(int s) {
    meet();
    send_all(s, "data", 4);
    int other = connect_another(trade(0));
    SHOW(close(s));
    meet();
    meet();
    send_all(other, "data", 4);
    meet();
    talk(other);
}

static void child_far(int s) {
    int listener = new_listener(1), epoll = new_epoll(), ends[2];
    char bytes[8];
    watch_for_a_while(epoll, s);
    pid_t child = start_child(ends);
    SHOW(close(s));
    trade(port_of(listener));
    int other = accept_another(listener);
    say("the same number: %d", other == s);
    SHOW(control(epoll, EPOLL_CTL_ADD, other, EPOLLIN | EPOLLRDHUP | EPOLLET, 2));
    meet();
    say_wait("the first has ended", epoll, 50);
    SHOW(recv(other, bytes, 8, MSG_DONTWAIT));
    meet();
    say_wait("second connection", epoll, 5000);
    SHOW(read(other, bytes, 8));
    end_child(child, ends);
    meet();
    talk(other);
}

// --- a copy goes into another epoll

static void copy_near(int s) {
    meet();
    send_all(s, "data", 4);
    int other = connect_another(trade(0));
    meet();
    send_all(other, "data", 4);
    meet();
    send_all(s, "data", 4);
    meet();
    talk(other);
    talk(s);
}

static void copy_far(int s) {
    int listener = new_listener(1), epoll = new_epoll(), elsewhere = new_epoll();
    char bytes[8];
    watch_for_a_while(epoll, s);
    int copy = MUST(dup(s));
    SHOW(close(s));
    trade(port_of(listener));
    int other = accept_another(listener);
    say("the same number: %d", other == s);
    SHOW(control(epoll, EPOLL_CTL_ADD, other, EPOLLIN, 2));
    SHOW(control(elsewhere, EPOLL_CTL_ADD, copy, EPOLLIN, 3));
    meet();
    say_wait("second connection", epoll, 5000);
    SHOW(read(other, bytes, 8));
    say_wait("first connection", elsewhere, 0);
    meet();
    say_wait("first connection", elsewhere, 5000);
    SHOW(read(copy, bytes, 8));
    say_wait("second connection", epoll, 0);
    meet();
    talk(other);
    talk(copy);
}

// --- what is watched under a number that was closed is told of still, beside what has the number now

static void beside_near(int s) {
    int other = connect_another(trade(0));
    meet();
    send_all(s, "data", 4);
    meet();
    send_all(other, "data", 4);
    meet();
    talk(other);
    talk(s);
}

static void beside_far(int s) {
    int listener = new_listener(1), epoll = new_epoll();
    char bytes[8];
    SHOW(control(epoll, EPOLL_CTL_ADD, s, EPOLLIN, 1));
    int copy = MUST(dup(s));
    SHOW(close(s));
    trade(port_of(listener));
    int other = accept_another(listener);
    say("the same number: %d", other == s);
    SHOW(control(epoll, EPOLL_CTL_DEL, other, 0, 0));
    SHOW(control(epoll, EPOLL_CTL_MOD, other, EPOLLIN, 0));
    SHOW(control(epoll, EPOLL_CTL_ADD, other, EPOLLIN, 2));
    meet();
    say_wait("first connection", epoll, 5000);
    SHOW(read(copy, bytes, 8));
    say_wait("first connection, read", epoll, 0);
    meet();
    say_wait("second connection", epoll, 5000);
    SHOW(read(other, bytes, 8));
    SHOW(control(epoll, EPOLL_CTL_DEL, other, 0, 0));
    say_wait("second connection, read", epoll, 0);
    meet();
    talk(other);
    talk(copy);
}

// --- a copy that was never watched is closed: what is watched can be changed and removed as before

static void unwatched_near(int s) {
    for (int i = 0; i < 2; i++) {
        meet();
        send_all(s, "data", 4);
    }
    meet();
    talk(s);
}

static void unwatched_far(int s) {
    int epoll = new_epoll();
    char bytes[8];
    SHOW(control(epoll, EPOLL_CTL_ADD, s, EPOLLIN, 1));
    MUST(close(MUST(dup(s))));
    SHOW(control(epoll, EPOLL_CTL_MOD, s, EPOLLIN, 2));
    say_wait("idle", epoll, 20);
    meet();
    say_wait("changed", epoll, 5000);
    SHOW(read(s, bytes, 8));
    say_wait("read", epoll, 20);
    SHOW(control(epoll, EPOLL_CTL_MOD, s, EPOLLIN | EPOLLET, 3));
    meet();
    say_wait("changed again", epoll, 5000);
    say_wait("told", epoll, 20);
    SHOW(read(s, bytes, 8));
    SHOW(control(epoll, EPOLL_CTL_ADD, s, EPOLLIN, 4));
    SHOW(control(epoll, EPOLL_CTL_DEL, s, 0, 0));
    SHOW(control(epoll, EPOLL_CTL_MOD, s, EPOLLIN, 5));
    SHOW(control(epoll, EPOLL_CTL_ADD, s, EPOLLIN | EPOLLOUT, 6));
    say_wait("added again", epoll, 5000);
    meet();
    talk(s);
}

// --- closed here, and going on in a child, with bytes that nobody reads: whatever is told of them, calls come back

static void unread_near(int s) {
    meet();
    send_all(s, "data", 4);
    meet();
    talk(s);
}

static void unread_far(int s) {
    int listener = new_listener(1), epoll = new_epoll(), ends[2];
    int sending = connect_to(port_of(listener)), receiving = MUST(accept(listener, NULL, NULL));
    char bytes[8];
    struct epoll_event event = {0};
    SHOW(control(epoll, EPOLL_CTL_ADD, receiving, EPOLLIN, 1));
    pid_t child = start_child(ends);
    SHOW(close(receiving));
    send_all(sending, "1", 1);
    epoll_wait(epoll, &event, 1, 50);
    say("waited");
    epoll_wait(epoll, &event, 1, 0);
    say("looked");
    SHOW(control(epoll, EPOLL_CTL_ADD, s, EPOLLIN, 2));
    meet();
    await(s, POLLIN);
    while (epoll_wait(epoll, &event, 1, 5000) == 1 && event.data.u64 != 2)
        continue;
    say("data %llu", (unsigned long long)event.data.u64);
    SHOW(read(s, bytes, 8));
    end_child(child, ends);
    meet();
    talk(s);
}

const struct scenario reused_number_scenarios[] = {
    {"epoll-number-of-a-childs-connection", CONNECTED, child_near, child_far},
    {"epoll-number-of-a-copied-connection", CONNECTED, copy_near, copy_far},
    {"epoll-number-used-twice", CONNECTED, beside_near, beside_far},
    {"epoll-number-never-watched", CONNECTED, unwatched_near, unwatched_far},
    {"epoll-number-closed-with-bytes-unread", CONNECTED, unread_near, unread_far},
    {NULL},
};
