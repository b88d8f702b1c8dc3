// epoll that is looked at from outside, by poll and select and by another, with descriptors in it that are no
// connections.
#include "semantics.h"

static int new_counter(void) { return MUST(eventfd(0, EFD_NONBLOCK)); }

static void count_up(int counter) { MUST(write(counter, &(uint64_t){1}, 8)); }

static void count_down(int counter) { MUST(read(counter, &(uint64_t){0}, 8)); }

// What there is for who looks from outside.
static void look(const char *when, int epoll) {
    struct pollfd entry = {.fd = epoll, .events = POLLIN};
    fd_set set;
    FD_ZERO(&set);
    FD_SET(epoll, &set);
    int polled = poll(&entry, 1, 10);
    say("%s: poll %d, select %d", when, polled, select(epoll + 1, &set, NULL, NULL, &(struct timeval){0}));
}

static void say_wait(const char *when, int epoll) {
    struct epoll_event events[8];
    int count = epoll_wait(epoll, events, 8, 0);
    say("%s: %d", when, count);
    for (int i = 0; i < count; i++)
        say("  %s, data %llu", event_names(events[i].events), (unsigned long long)events[i].data.u64);
}

static void look_and_wait(const char *when, int epoll) {
    look(when, epoll);
    look("  and again", epoll);
    say_wait("  waited", epoll);
    look("  and then", epoll);
}

static void by_level(int epoll) {
    int counter = new_counter();
    SHOW(control(epoll, EPOLL_CTL_ADD, counter, EPOLLIN, 11));
    look("level, nothing", epoll);
    count_up(counter);
    look_and_wait("level", epoll);
    count_down(counter);
    look_and_wait("level, emptied", epoll);
    count_up(counter);
    look("level, taken while looked at", epoll);
    count_down(counter);
    look_and_wait("level, emptied without a wait", epoll);
    count_up(counter);
    look("level, to be deleted", epoll);
    SHOW(control(epoll, EPOLL_CTL_DEL, counter, 0, 0));
    look_and_wait("level, deleted", epoll);
    SHOW(control(epoll, EPOLL_CTL_ADD, counter, EPOLLIN, 12));
    look("level, to be closed", epoll);
    SHOW(close(counter));
    look_and_wait("level, closed", epoll);
}

static void by_edge(int epoll) {
    int counter = new_counter();
    SHOW(control(epoll, EPOLL_CTL_ADD, counter, EPOLLIN | EPOLLET, 21));
    count_up(counter);
    look_and_wait("edge", epoll);
    count_up(counter);
    look_and_wait("another edge", epoll);
    count_up(counter);
    look("edge, looked at", epoll);
    count_down(counter);
    look_and_wait("edge, emptied without a wait", epoll);
    count_up(counter);
    look("edge, to be changed", epoll);
    SHOW(control(epoll, EPOLL_CTL_MOD, counter, EPOLLIN | EPOLLET, 22));
    look_and_wait("edge, changed", epoll);
    count_up(counter);
    look("edge, to be asked for nothing", epoll);
    SHOW(control(epoll, EPOLL_CTL_MOD, counter, EPOLLPRI | EPOLLET, 23));
    look_and_wait("edge, asked for nothing", epoll);
    SHOW(control(epoll, EPOLL_CTL_MOD, counter, EPOLLIN | EPOLLET, 24));
    look("edge, to be deleted", epoll);
    SHOW(control(epoll, EPOLL_CTL_DEL, counter, 0, 0));
    look_and_wait("edge, deleted", epoll);
    SHOW(control(epoll, EPOLL_CTL_ADD, counter, EPOLLIN | EPOLLET, 25));
    look("edge, to be closed", epoll);
    SHOW(close(counter));
    look_and_wait("edge, closed", epoll);
    counter = new_counter();
    SHOW(control(epoll, EPOLL_CTL_ADD, counter, EPOLLIN | EPOLLET | EPOLLEXCLUSIVE, 26));
    count_up(counter);
    look_and_wait("edge, exclusively", epoll);
    SHOW(close(counter));
}

static void once(int epoll) {
    int counter = new_counter();
    SHOW(control(epoll, EPOLL_CTL_ADD, counter, EPOLLIN | EPOLLONESHOT, 31));
    count_up(counter);
    look_and_wait("once", epoll);
    count_up(counter);
    look_and_wait("once, spent", epoll);
    SHOW(control(epoll, EPOLL_CTL_MOD, counter, EPOLLIN | EPOLLONESHOT, 32));
    look("once, looked at", epoll);
    count_down(counter);
    look_and_wait("once, emptied without a wait", epoll);
    count_up(counter);
    look_and_wait("once, full again", epoll);
    SHOW(close(counter));
}

// A connection that stays TCP: two bytes are too few to move it.
static void by_connection(int epoll) {
    int listener = new_listener(1), sending = connect_to(port_of(listener));
    int receiving = MUST(accept(listener, NULL, NULL));
    SHOW(control(epoll, EPOLL_CTL_ADD, receiving, EPOLLIN | EPOLLET, 41));
    look("connection", epoll);
    send_all(sending, "1", 1);
    await(receiving, POLLIN);
    look_and_wait("connection, by edge", epoll);
    SHOW(control(epoll, EPOLL_CTL_MOD, receiving, EPOLLIN | EPOLLONESHOT, 42));
    look_and_wait("connection, once", epoll);
    SHOW(control(epoll, EPOLL_CTL_MOD, receiving, EPOLLIN | EPOLLONESHOT, 43));
    look("connection, to be deleted", epoll);
    SHOW(control(epoll, EPOLL_CTL_DEL, receiving, 0, 0));
    look_and_wait("connection, deleted", epoll);
    close(sending);
    close(receiving);
    close(listener);
}

// Another epoll looks.
static void by_another(int epoll) {
    int outer = new_epoll(), level = new_counter(), edge = new_counter();
    SHOW(control(epoll, EPOLL_CTL_ADD, level, EPOLLIN, 51));
    SHOW(control(epoll, EPOLL_CTL_ADD, edge, EPOLLIN | EPOLLET, 52));
    SHOW(control(outer, EPOLL_CTL_ADD, epoll, EPOLLIN, 1));
    say_wait("outer, nothing", outer);
    count_up(level);
    say_wait("outer, level", outer);
    say_wait("outer, level still", outer);
    count_down(level);
    say_wait("outer, emptied", outer);
    count_up(edge);
    say_wait("outer, edge", outer);
    say_wait("outer, edge still", outer);
    look_and_wait("inner, edge", epoll);
    say_wait("outer, edge told", outer);
    SHOW(control(outer, EPOLL_CTL_MOD, epoll, EPOLLIN | EPOLLET, 2));
    say_wait("outer by edge, nothing", outer);
    count_up(edge);
    say_wait("outer by edge", outer);
    say_wait("outer by edge, told", outer);
    say_wait("inner, edge", epoll);
    say_wait("outer by edge, told", outer);
    count_up(level);
    say_wait("outer by edge", outer);
    say_wait("outer by edge, told", outer);
    say_wait("inner, level", epoll);
    count_down(level);
    say_wait("outer by edge, emptied", outer);
    SHOW(close(level));
    SHOW(close(edge));
    SHOW(close(outer));
}

static void all(int epoll) {
    by_level(epoll);
    by_edge(epoll);
    once(epoll);
    by_connection(epoll);
    by_another(epoll);
}

static void alone_near(int s) {
    (void)s;
    all(new_epoll());
}

static void beside_near(int s) {
    for (int i = 0; i < 2; i++) {
        meet();
        send_all(s, "data", 4);
        meet();
    }
    talk(s);
}

static void beside_far(int s) {
    char bytes[8];
    int epoll = new_epoll();
    SHOW(control(epoll, EPOLL_CTL_ADD, s, EPOLLIN, 1));
    meet();
    await(s, POLLIN);
    look("connection", epoll);
    say_wait("connection", epoll);
    SHOW(read(s, bytes, 8));
    meet();
    look("connection, read", epoll);
    all(epoll);
    meet();
    await(s, POLLIN);
    look_and_wait("connection", epoll);
    SHOW(read(s, bytes, 8));
    meet();
    look_and_wait("connection, read", epoll);
    talk(s);
}

// One thread sleeps in epoll_wait, another looks from outside all the time: the event is for the one who sleeps.
struct watched {
    int epoll;
    int counter;
    int stop;
};

static void *wait_for_events(void *argument) {
    struct watched *watched = argument;
    struct epoll_event event;
    for (int i = 0; i < 200; i++) {
        if (epoll_wait(watched->epoll, &event, 1, 5000) != 1)
            die("event %d has not come", i);
        if (event.data.u64 != 2)
            die("event %d is of %llu", i, (unsigned long long)event.data.u64);
        count_down(watched->counter);
        count_up(watched->stop);
    }
    return NULL;
}

static void asleep_far(int s) {
    struct watched watched = {new_epoll(), new_counter(), new_counter()};
    struct pollfd entries[] = {{.fd = watched.epoll, .events = POLLIN}, {.fd = watched.stop, .events = POLLIN}};
    char bytes[8];
    pthread_t thread;
    SHOW(control(watched.epoll, EPOLL_CTL_ADD, s, EPOLLIN | EPOLLET, 1));
    meet();
    await(s, POLLIN);
    say_wait("connection", watched.epoll);
    SHOW(read(s, bytes, 8));
    meet();
    SHOW(control(watched.epoll, EPOLL_CTL_ADD, watched.counter, EPOLLIN | EPOLLET, 2));
    pthread_create(&thread, NULL, wait_for_events, &watched);
    for (int i = 0; i < 200; i++) {
        count_up(watched.counter);
        do
            MUST(poll(entries, 2, 5000));
        while (!(entries[1].revents & POLLIN));
        count_down(watched.stop);
    }
    pthread_join(thread, NULL);
    SHOW(close(watched.counter));
    meet();
    await(s, POLLIN);
    SHOW(read(s, bytes, 8));
    meet();
    talk(s);
}

// --- what is asked for changes in an instance that another watches

static void changed_near(int s) {
    meet();
    send_all(s, "data", 4);
    meet();
    talk(s);
}

static int wait_outside(int outer, int timeout) {
    struct epoll_event event;
    return epoll_wait(outer, &event, 1, timeout);
}

static void changed_far(int s) {
    int inner = new_epoll(), outer = new_epoll();
    char bytes[4];
    SHOW(control(inner, EPOLL_CTL_ADD, s, 0, 1));
    SHOW(control(outer, EPOLL_CTL_ADD, inner, EPOLLIN, 2));
    SHOW(wait_outside(outer, 20));
    SHOW(control(inner, EPOLL_CTL_MOD, s, EPOLLOUT, 1));
    SHOW(wait_outside(outer, 5000));
    SHOW(control(inner, EPOLL_CTL_MOD, s, EPOLLIN | EPOLLONESHOT, 1));
    SHOW(wait_outside(outer, 20));
    meet();
    SHOW(wait_outside(outer, 5000));
    say_wait("data", inner);
    SHOW(wait_outside(outer, 20));
    SHOW(control(inner, EPOLL_CTL_MOD, s, EPOLLIN | EPOLLONESHOT, 1));
    SHOW(wait_outside(outer, 5000));
    SHOW(control(inner, EPOLL_CTL_DEL, s, 0, 0));
    SHOW(wait_outside(outer, 20));
    SHOW(control(inner, EPOLL_CTL_ADD, s, EPOLLIN, 1));
    SHOW(wait_outside(outer, 5000));
    receive_exactly(s, bytes, 4);
    SHOW(wait_outside(outer, 20));
    meet();
    talk(s);
}

// --- what came before a connection was moved stays unread: the next is told of all the same, and so is what comes for others

enum { UNREAD = 100, BEFORE_MOVED = 80, EVENTS = 20 };

static void say_one(int epoll) {
    struct epoll_event event;
    int count = epoll_wait(epoll, &event, 1, 5000);
    say("%d: %s, data %llu", count, count == 1 ? event_names(event.events) : "", (unsigned long long)event.data.u64);
}

static void unread_first_near(int s) {
    char byte = 'x', bytes[UNREAD + 10 * EVENTS];
    int unread = connect_to(trade(0)), epoll = new_epoll();
    MUST(control(epoll, EPOLL_CTL_ADD, unread, EPOLLIN | EPOLLET, 1));
    MUST(control(epoll, EPOLL_CTL_ADD, s, EPOLLIN, 2));
    for (int i = 0; i < BEFORE_MOVED; i++) {
        send_all(unread, &byte, 1);
        trade(i);
    }
    wait_bytes(unread, UNREAD);
    nap_ms(50);
    // What there was before, whatever it was told as.
    while (epoll_wait(epoll, &(struct epoll_event){0}, 1, 20) > 0) {
    }
    for (int i = 0; i < EVENTS; i++) {
        meet();
        say_one(epoll);
        meet();
        say_one(epoll);
        receive_exactly(s, bytes, 10);
    }
    receive_exactly(unread, bytes, sizeof bytes);
    MUST(close(epoll));
    MUST(close(unread));
    talk(s);
}

static void unread_first_far(int s) {
    static const char bytes[UNREAD];
    char byte;
    int listener = new_listener(1);
    trade(port_of(listener));
    int unread = MUST(accept(listener, NULL, NULL));
    send_all(unread, bytes, UNREAD);
    for (int i = 0; i < BEFORE_MOVED; i++) {
        receive_exactly(unread, &byte, 1);
        trade(i);
    }
    for (int i = 0; i < EVENTS; i++) {
        meet();
        nap_ms(5);
        send_all(unread, bytes, 10);
        meet();
        nap_ms(5);
        send_all(s, bytes, 10);
    }
    talk(s);
}

const struct scenario watched_epoll_scenarios[] = {
    {"epoll-watched-without-connections", ALONE, alone_near, NULL},
    {"epoll-watched-beside-a-connection", CONNECTED, beside_near, beside_far},
    {"epoll-watched-while-it-changes", CONNECTED, changed_near, changed_far},
    {"epoll-watched-while-another-sleeps", CONNECTED, beside_near, asleep_far},
    {"epoll-unread-since-before-moved", CONNECTED, unread_first_near, unread_first_far},
    {NULL},
};
