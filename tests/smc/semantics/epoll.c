// epoll: level and edge, once and exclusively, and what it hands back.
#include "semantics.h"

static void say_wait(const char *when, int epoll, int timeout) {
    struct epoll_event events[8];
    int count = epoll_wait(epoll, events, 8, timeout);
    say("%s: %d", when, count);
    for (int i = 0; i < count; i++)
        say("  %s, data %llx", event_names(events[i].events), (unsigned long long)events[i].data.u64);
}

// --- level

static void level_near(int s) {
    for (int i = 0; i < 2; i++) {
        meet();
        SHOW(write(s, "data", 4));
        meet();
    }
    talk(s);
}

static void level_far(int s) {
    char bytes[8];
    int epoll = new_epoll();
    SHOW(control(epoll, EPOLL_CTL_ADD, s, EPOLLIN, 0xfedcba9876543210));
    SHOW(control(epoll, EPOLL_CTL_ADD, s, EPOLLIN, 1));
    say_wait("idle", epoll, 0);
    say_wait("idle for a moment", epoll, 20);
    meet();
    say_wait("data", epoll, -1);
    say_wait("data still", epoll, 0);
    SHOW(read(s, bytes, 2));
    say_wait("part left", epoll, 0);
    SHOW(read(s, bytes, 2));
    say_wait("none left", epoll, 0);
    meet();
    SHOW(control(epoll, EPOLL_CTL_MOD, s, EPOLLIN | EPOLLOUT | EPOLLRDHUP, UINT64_MAX));
    say_wait("room", epoll, 0);
    meet();
    await(s, POLLIN);
    say_wait("room and data", epoll, 0);
    SHOW(control(epoll, EPOLL_CTL_MOD, s, 0, 5));
    say_wait("asked for nothing", epoll, 0);
    SHOW(control(epoll, EPOLL_CTL_MOD, s, EPOLLIN, 0));
    say_wait("asked again", epoll, 0);
    SHOW(control(epoll, EPOLL_CTL_DEL, s, 0, 0));
    say_wait("deleted", epoll, 0);
    SHOW(control(epoll, EPOLL_CTL_DEL, s, 0, 0));
    SHOW(control(epoll, EPOLL_CTL_MOD, s, EPOLLIN, 0));
    SHOW(control(epoll, EPOLL_CTL_ADD, s, EPOLLIN, 7));
    say_wait("added with data there", epoll, 0);
    SHOW(read(s, bytes, 8));
    meet();
    talk(s);
}

// --- edge

static void edge_near(int s) {
    char bytes[3];
    for (int i = 0; i < 4; i++) {
        meet();
        SHOW(write(s, "data", 4));
        meet();
    }
    receive_exactly(s, bytes, 3);
    say_bytes("came back", bytes, 3);
    talk(s);
}

static void edge_far(int s) {
    char bytes[32];
    int epoll = new_epoll();
    SHOW(control(epoll, EPOLL_CTL_ADD, s, EPOLLIN | EPOLLOUT | EPOLLET, 42));
    say_wait("added", epoll, 0);
    say_wait("no new edge", epoll, 20);
    meet();
    say_wait("first data", epoll, -1);
    say_wait("no new edge", epoll, 20);
    meet();
    meet();
    say_wait("more data on top", epoll, -1);
    say_wait("no new edge", epoll, 20);
    meet();
    SHOW(read(s, bytes, 3));
    say_wait("reading makes no edge", epoll, 20);
    SHOW(read(s, bytes, 32));
    SHOW(recv(s, bytes, 1, MSG_DONTWAIT));
    say_wait("nor does emptying", epoll, 20);
    meet();
    say_wait("data after empty", epoll, -1);
    meet();
    SHOW(control(epoll, EPOLL_CTL_MOD, s, EPOLLIN | EPOLLET, 43));
    say_wait("changing it looks again", epoll, 0);
    say_wait("once", epoll, 20);
    SHOW(write(s, "out", 3));
    say_wait("writing makes no edge", epoll, 20);
    meet();
    say_wait("data", epoll, -1);
    meet();
    SHOW(read(s, bytes, 32));
    talk(s);
}

// --- once

static void oneshot_near(int s) {
    for (int i = 0; i < 3; i++) {
        meet();
        SHOW(write(s, "data", 4));
        meet();
    }
    talk(s);
}

static void oneshot_far(int s) {
    char bytes[32];
    int epoll = new_epoll();
    SHOW(control(epoll, EPOLL_CTL_ADD, s, EPOLLIN | EPOLLONESHOT, 1));
    meet();
    say_wait("first", epoll, -1);
    say_wait("disarmed", epoll, 20);
    meet();
    meet();
    await(s, POLLIN);
    say_wait("disarmed still", epoll, 20);
    SHOW(control(epoll, EPOLL_CTL_MOD, s, EPOLLIN | EPOLLONESHOT, 2));
    say_wait("armed again", epoll, 0);
    say_wait("disarmed", epoll, 0);
    SHOW(read(s, bytes, 32));
    SHOW(control(epoll, EPOLL_CTL_MOD, s, EPOLLIN | EPOLLET | EPOLLONESHOT, 3));
    say_wait("nothing there", epoll, 20);
    meet();
    meet();
    say_wait("edge, once", epoll, -1);
    SHOW(read(s, bytes, 32));
    say_wait("disarmed", epoll, 20);
    SHOW(control(epoll, EPOLL_CTL_MOD, s, EPOLLOUT | EPOLLONESHOT, 4));
    say_wait("room", epoll, 0);
    say_wait("disarmed", epoll, 0);
    meet();
    talk(s);
}

// --- the end of the stream

static void hangup_near(int s) {
    SHOW(write(s, "last", 4));
    SHOW(shutdown(s, SHUT_WR));
    meet();
    char byte;
    SHOW(read(s, &byte, 1));
    meet();
}

static void hangup_far(int s) {
    char bytes[8];
    int level = new_epoll(), edge = new_epoll();
    SHOW(control(level, EPOLL_CTL_ADD, s, EPOLLIN | EPOLLRDHUP, 1));
    SHOW(control(edge, EPOLL_CTL_ADD, s, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, 2));
    await(s, POLLRDHUP);
    await(s, POLLIN);
    say_wait("level", level, -1);
    say_wait("edge", edge, -1);
    SHOW(read(s, bytes, 8));
    say_wait("level, data read", level, 0);
    SHOW(read(s, bytes, 8));
    say_wait("level, end read", level, 0);
    say_wait("edge, end read", edge, 0);
    SHOW(shutdown(s, SHUT_WR));
    meet();
    meet();
    await(s, POLLHUP);
    say_wait("level, closed", level, 0);
}

// What is reported without being asked for.
static void unasked_near(int s) {
    SHOW(shutdown(s, SHUT_WR));
    meet();
    char byte;
    SHOW(read(s, &byte, 1));
    meet();
}

static void unasked_far(int s) {
    int epoll = new_epoll();
    SHOW(control(epoll, EPOLL_CTL_ADD, s, 0, 3));
    await(s, POLLRDHUP);
    say_wait("peer finished", epoll, 20);
    SHOW(shutdown(s, SHUT_WR));
    meet();
    meet();
    await(s, POLLHUP);
    say_wait("both finished", epoll, 0);
}

// --- room, after none

static void room_near(int s) {
    int level = new_epoll(), edge = new_epoll();
    SHOW(control(level, EPOLL_CTL_ADD, s, EPOLLOUT, 1));
    SHOW(control(edge, EPOLL_CTL_ADD, s, EPOLLOUT | EPOLLET, 2));
    say_wait("level, at the beginning", level, 0);
    say_wait("edge, at the beginning", edge, 0);
    say_wait("edge, no more", edge, 10);
    size_t sent = fill_up(s);
    say_wait("level, full", level, 10);
    // Whether there was an edge on the way says nothing.
    struct epoll_event event;
    epoll_wait(edge, &event, 1, 0);
    trade(sent);
    say_wait("level, read by the peer", level, -1);
    say_wait("edge, read by the peer", edge, -1);
    meet();
    talk(s);
}

static void room_far(int s) {
    size_t total = trade(0);
    char *bytes = malloc(total);
    nap_ms(20);
    receive_exactly(s, bytes, total);
    meet();
    talk(s);
}

// --- many at once

static void several_near(int s) {
    int more[4], listener_port = trade(0);
    for (int i = 0; i < 4; i++) {
        more[i] = connect_to(listener_port);
        warm(more[i], true);
    }
    meet();
    for (int i = 0; i < 4; i++)
        SHOW(write(more[i], "data", 4));
    meet();
    char bytes[8];
    for (int i = 0; i < 4; i++)
        SHOW(read(more[i], bytes, 8));
    talk(s);
}

static int by_data(const void *a, const void *b) {
    const struct epoll_event *one = a, *other = b;
    return one->data.u64 < other->data.u64 ? -1 : one->data.u64 > other->data.u64;
}

static void several_far(int s) {
    int listener = new_listener(8), more[4], epoll = new_epoll();
    char bytes[8];
    SHOW(control(epoll, EPOLL_CTL_ADD, s, EPOLLIN, 100));
    trade(port_of(listener));
    for (int i = 0; i < 4; i++) {
        more[i] = MUST(accept(listener, NULL, NULL));
        warm(more[i], false);
        MUST(control(epoll, EPOLL_CTL_ADD, more[i], EPOLLIN, i));
    }
    meet();
    for (int i = 0; i < 4; i++)
        await(more[i], POLLIN);
    struct epoll_event events[8];
    // No more than asked for, and all in turn, if not in the kernel's order.
    unsigned seen = 0;
    for (int i = 0; i < 8; i++) {
        SHOW(epoll_wait(epoll, events, 1, 0));
        seen |= 1u << events[0].data.u64;
    }
    say("seen in turn: %#x", seen);
    int count = SHOW(epoll_wait(epoll, events, 8, 0));
    qsort(events, count, sizeof *events, by_data);
    for (int i = 0; i < count; i++) {
        say("data %llu: %s", (unsigned long long)events[i].data.u64, event_names(events[i].events));
        SHOW(read(more[events[i].data.u64], bytes, 8));
        SHOW(write(more[events[i].data.u64], "reply", 5));
    }
    say_wait("all read", epoll, 0);
    SHOW(close(more[2]));
    say_wait("one closed", epoll, 10);
    meet();
    talk(s);
}

// --- errors

static void errors(int s) {
    struct epoll_event event = {.events = EPOLLIN};
    int epoll = new_epoll(), ends[2];
    MUST(pipe(ends));
    int file = fileno(tmpfile());
    SHOW(epoll_create(0));
    SHOW(control(s, EPOLL_CTL_ADD, ends[0], EPOLLIN, 0));
    SHOW(control(epoll, EPOLL_CTL_ADD, 777, EPOLLIN, 0));
    SHOW(control(epoll, EPOLL_CTL_ADD, file, EPOLLIN, 0));
    SHOW(control(epoll, EPOLL_CTL_ADD, epoll, EPOLLIN, 0));
    SHOW(control(epoll, 99, s, EPOLLIN, 0));
    SHOW(epoll_wait(epoll, &event, 0, 0));
    volatile int minus_one = -1;
    SHOW(epoll_wait(epoll, &event, minus_one, 0));
    SHOW(epoll_wait(s, &event, 1, 0));
    SHOW(epoll_wait(777, &event, 1, 0));
    SHOW(control(epoll, EPOLL_CTL_ADD, s, EPOLLIN | EPOLLEXCLUSIVE | EPOLLONESHOT, 0));
    SHOW(control(epoll, EPOLL_CTL_ADD, s, EPOLLIN | EPOLLEXCLUSIVE, 0));
    SHOW(control(epoll, EPOLL_CTL_MOD, s, EPOLLIN, 0));
    SHOW(control(epoll, EPOLL_CTL_DEL, s, 0, 0));
    SHOW(epoll_ctl(epoll, EPOLL_CTL_DEL, s, NULL));
    SHOW(control(epoll, EPOLL_CTL_ADD, s, EPOLLIN, 0));
    SHOW(epoll_ctl(epoll, EPOLL_CTL_DEL, s, NULL));
    talk(s);
}

const struct scenario epoll_scenarios[] = {
    {"epoll-level", CONNECTED, level_near, level_far},
    {"epoll-edge", CONNECTED, edge_near, edge_far},
    {"epoll-oneshot", CONNECTED, oneshot_near, oneshot_far},
    {"epoll-end-of-stream", CONNECTED, hangup_near, hangup_far},
    {"epoll-unasked", CONNECTED, unasked_near, unasked_far},
    {"epoll-until-room", CONNECTED, room_near, room_far},
    {"epoll-several", CONNECTED, several_near, several_far},
    {"epoll-errors", CONNECTED, errors, errors},
    {NULL},
};
