// Threads that share an epoll: what is asked for once is one thread's, and nothing stays behind while somebody sleeps.
#include "semantics.h"
#include <semaphore.h>

enum { THREADS = 4, MESSAGES = 3000, ROUNDS = 400, CONNECTIONS = 8, MOVING_ROUNDS = 100 };

static struct shared {
    int epoll;
    int socket;
    int counter;
    int stop;
    int rounds;
    int owners;
    long got;
    sem_t has_read;
    sem_t is_done;
} shared;

static int stop_of(void) {
    int stop = MUST(eventfd(0, EFD_NONBLOCK));
    MUST(control(shared.epoll, EPOLL_CTL_ADD, stop, EPOLLIN, 3));
    return stop;
}

static void run_threads(void *run(void *), int count, void during(void)) {
    pthread_t threads[THREADS];
    for (int i = 0; i < count; i++)
        pthread_create(threads + i, NULL, run, NULL);
    during();
    MUST(write(shared.stop, &(uint64_t){1}, 8));
    for (int i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
}

// --- once

static void *own_for_a_moment(void *argument) {
    struct epoll_event event;
    for (;;) {
        // Without sleep, so that several look at the same time.
        if (MUST(epoll_wait(shared.epoll, &event, 1, 0)) == 0)
            continue;
        if (event.data.u64 == 3)
            return argument;
        if (__atomic_fetch_add(&shared.owners, 1, __ATOMIC_SEQ_CST) != 0)
            die("two threads were told at once");
        char bytes[64];
        ssize_t got = recv(shared.socket, bytes, sizeof bytes, MSG_DONTWAIT);
        if (got > 0)
            __atomic_fetch_add(&shared.got, got, __ATOMIC_SEQ_CST);
        for (volatile int i = 0; i < 2000; i++)
            continue;
        __atomic_fetch_sub(&shared.owners, 1, __ATOMIC_SEQ_CST);
        MUST(control(shared.epoll, EPOLL_CTL_MOD, shared.socket, EPOLLIN | EPOLLONESHOT, 1));
    }
}

static void wait_for_all(void) {
    meet();
    for (int i = 0; i < 5000 && __atomic_load_n(&shared.got, __ATOMIC_SEQ_CST) < 4 * MESSAGES; i++)
        nap_ms(1);
}

static void once_near(int s) {
    for (int i = 0; i < MESSAGES; i++) {
        send_all(s, "data", 4);
        if (i % 2)
            nanosleep(&(struct timespec){0, 20000}, NULL);
    }
    meet();
    talk(s);
}

static void once_far(int s) {
    shared.epoll = new_epoll();
    shared.socket = s;
    shared.stop = stop_of();
    MUST(control(shared.epoll, EPOLL_CTL_ADD, s, EPOLLIN | EPOLLONESHOT, 1));
    run_threads(own_for_a_moment, THREADS, wait_for_all);
    say("got %ld", shared.got);
    talk(s);
}

// --- each event is another's

static void must_come(sem_t *semaphore, const char *what) {
    struct timespec limit;
    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += 5;
    if (sem_timedwait(semaphore, &limit) != 0)
        die("%s", what);
}

// Who has the counter's event waits until another has had the connection's.
static void *wait_for_another(void *argument) {
    struct epoll_event event;
    for (;;) {
        MUST(epoll_wait(shared.epoll, &event, 1, -1));
        if (event.data.u64 == 3)
            return argument;
        if (event.data.u64 == 2) {
            MUST(read(shared.counter, &(uint64_t){0}, 8));
            must_come(&shared.has_read, "nobody was told of the connection");
            sem_post(&shared.is_done);
        } else {
            char bytes[4];
            if (recv(shared.socket, bytes, 4, MSG_DONTWAIT) == 4)
                sem_post(&shared.has_read);
        }
    }
}

static void count_while_it_comes(void) {
    for (int i = 0; i < shared.rounds; i++) {
        meet();
        for (volatile int j = 0; j < i * 100; j++)
            continue;
        MUST(write(shared.counter, &(uint64_t){1}, 8));
        must_come(&shared.is_done, "nobody was told of the counter");
    }
}

static void send_while_it_counts(int s, int rounds) {
    for (int i = 0; i < rounds; i++) {
        meet();
        send_all(s, "data", 4);
    }
}

static void another_near(int s) {
    send_while_it_counts(s, ROUNDS);
    talk(s);
}

static void tell_each_another(int s, int rounds) {
    shared.epoll = new_epoll();
    shared.socket = s;
    shared.rounds = rounds;
    shared.counter = MUST(eventfd(0, EFD_NONBLOCK));
    shared.stop = stop_of();
    sem_init(&shared.has_read, 0, 0);
    sem_init(&shared.is_done, 0, 0);
    MUST(control(shared.epoll, EPOLL_CTL_ADD, s, EPOLLIN | EPOLLET, 1));
    MUST(control(shared.epoll, EPOLL_CTL_ADD, shared.counter, EPOLLIN | EPOLLET, 2));
    run_threads(wait_for_another, 2, count_while_it_comes);
    MUST(close(shared.stop));
    MUST(close(shared.counter));
    MUST(close(shared.epoll));
    say("done");
}

static void another_far(int s) {
    tell_each_another(s, ROUNDS);
    talk(s);
}

// The same while connections are moved, one after the other.
static void moving_near(int s) {
    in_port_t port = trade(0);
    for (int i = 0; i < CONNECTIONS; i++) {
        int other = connect_to(port);
        send_while_it_counts(other, MOVING_ROUNDS);
        meet();
        MUST(close(other));
    }
    talk(s);
}

static void moving_far(int s) {
    int listener = new_listener(CONNECTIONS);
    trade(port_of(listener));
    for (int i = 0; i < CONNECTIONS; i++) {
        int other = MUST(accept(listener, NULL, NULL));
        tell_each_another(other, MOVING_ROUNDS);
        meet();
        MUST(close(other));
    }
    talk(s);
}

// --- told of for as long as it is there: to all who wait, one after the other

static void *note_and_leave(void *argument) {
    struct epoll_event event;
    if (MUST(epoll_wait(shared.epoll, &event, 1, 5000)) == 1 && event.data.u64 == 1)
        __atomic_fetch_add(&shared.got, 1, __ATOMIC_SEQ_CST);
    return argument;
}

static void tell_peer_soon(void) {
    nap_ms(50);
    meet();
    for (int i = 0; i < 3000 && __atomic_load_n(&shared.got, __ATOMIC_SEQ_CST) < THREADS; i++)
        nap_ms(1);
}

static void unread_near(int s) {
    meet();
    send_all(s, "data", 4);
    meet();
    talk(s);
}

static void unread_far(int s) {
    char bytes[4];
    shared.epoll = new_epoll();
    shared.stop = stop_of();
    MUST(control(shared.epoll, EPOLL_CTL_ADD, s, EPOLLIN, 1));
    run_threads(note_and_leave, THREADS, tell_peer_soon);
    say("told %ld", shared.got);
    receive_exactly(s, bytes, 4);
    meet();
    talk(s);
}

// --- a connection is moved while a thread waits for something else

static void *talk_soon(void *argument) {
    nap_ms(1000);
    warm(shared.socket, false);
    return argument;
}

static void limit_near(int s) {
    int other = connect_to(trade(0));
    warm(other, true);
    talk(s);
}

static void limit_far(int s) {
    int listener = new_listener(1);
    struct epoll_event event;
    pthread_t thread;
    trade(port_of(listener));
    shared.epoll = new_epoll();
    shared.socket = MUST(accept(listener, NULL, NULL));
    MUST(control(shared.epoll, EPOLL_CTL_ADD, shared.socket, EPOLLPRI, 1));
    pthread_create(&thread, NULL, talk_soon, NULL);
    uint64_t started = now_ms();
    SHOW(epoll_wait(shared.epoll, &event, 1, 1500));
    uint64_t took = now_ms() - started;
    say("in time: %d", took >= 1500 && took < 2200);
    pthread_join(thread, NULL);
    talk(s);
}

const struct scenario epoll_thread_scenarios[] = {
    {"epoll-once-for-one-thread", CONNECTED, once_near, once_far},
    {"epoll-each-event-to-another-thread", CONNECTED, another_near, another_far},
    {"epoll-each-event-while-connections-move", CONNECTED, moving_near, moving_far},
    {"epoll-level-for-all-threads", CONNECTED, unread_near, unread_far},
    {"epoll-limit-while-a-connection-moves", CONNECTED, limit_near, limit_far},
    {NULL},
};
