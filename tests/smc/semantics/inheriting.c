// fork: children that wait for what they have inherited, and children of processes with threads.
#include "semantics.h"

#define MESSAGE 64
#define MESSAGES 6

static pid_t must_fork(void) {
    pid_t child = fork();
    if (child < 0)
        die("fork: %s", error_name(errno));
    return child;
}

static void await_child(pid_t child) {
    int status = -1;
    MUST(waitpid(child, &status, 0));
    say("child ended with %d", WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status));
}

static void watch(int epoll, int descriptor, unsigned events) {
    struct epoll_event event = {.events = events, .data.u32 = 7};
    MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, descriptor, &event));
}

// Sends one message after the other, each to a peer that sleeps by then.
static void wake_near(int s) {
    for (int i = 0; i < MESSAGES; i++) {
        unsigned char bytes[MESSAGE];
        nap_ms(15);
        pattern(bytes, sizeof bytes, 0, i);
        send_all(s, bytes, sizeof bytes);
        receive_exactly(s, bytes, sizeof bytes);
        say_bytes("came back", bytes, sizeof bytes);
    }
    meet();
}

static void answer_one(int s) {
    unsigned char bytes[MESSAGE];
    receive_exactly(s, bytes, sizeof bytes);
    send_all(s, bytes, sizeof bytes);
}

// Answers each message that `epoll` tells of.
static void answer_all(int epoll, int s, bool drains) {
    for (int i = 0; i < MESSAGES; i++) {
        struct epoll_event event = {0};
        int found = MUST(epoll_wait(epoll, &event, 1, -1));
        say("%d event, %s of %u", found, event_names(event.events & ~EPOLLOUT), event.data.u32);
        answer_one(s);
        char byte;
        if (drains)
            SHOW(recv(s, &byte, 1, MSG_DONTWAIT));
    }
}

// --- an instance of the child's

static void in_child(int s, unsigned events) {
    pid_t child = must_fork();
    if (child == 0) {
        int epoll = MUST(epoll_create1(0));
        watch(epoll, s, events);
        answer_all(epoll, s, events & EPOLLET);
        _exit(5);
    }
    await_child(child);
    meet();
}

static void level_far(int s) { in_child(s, EPOLLIN); }
static void edge_far(int s) { in_child(s, EPOLLIN | EPOLLET); }

// The parent has nothing to do with it any more.
static void given_far(int s) {
    pid_t child = must_fork();
    if (child == 0) {
        nap_ms(10);
        int epoll = MUST(epoll_create1(0));
        watch(epoll, s, EPOLLIN);
        answer_all(epoll, s, false);
        _exit(5);
    }
    SHOW(close(s));
    await_child(child);
    meet();
}

// --- the parent's instance

// The parent has slept in it.
static int slept_in(int s, unsigned events) {
    int epoll = MUST(epoll_create1(0));
    struct epoll_event event;
    watch(epoll, s, events);
    SHOW(epoll_wait(epoll, &event, 1, 20));
    return epoll;
}

static void inherited(int s, unsigned events) {
    int epoll = slept_in(s, events);
    pid_t child = must_fork();
    if (child == 0) {
        answer_all(epoll, s, events & EPOLLET);
        _exit(5);
    }
    await_child(child);
    meet();
}

static void settled_near(int s) {
    meet();
    nap_ms(30);
    wake_near(s);
}

static void inherited_far(int s) {
    meet();
    inherited(s, EPOLLIN);
}

static void inherited_edge_far(int s) {
    meet();
    inherited(s, EPOLLIN | EPOLLET);
}

// Watched from outside.
static void polled_far(int s) {
    meet();
    int epoll = slept_in(s, EPOLLIN);
    pid_t child = must_fork();
    if (child == 0) {
        for (int i = 0; i < MESSAGES; i++) {
            struct pollfd entry = {.fd = epoll, .events = POLLIN};
            SHOW(poll(&entry, 1, -1));
            answer_one(s);
        }
        _exit(5);
    }
    await_child(child);
    meet();
}

// In turns with the parent, which goes on with its own instance.
static void turns_far(int s) {
    meet();
    int epoll = slept_in(s, EPOLLIN);
    for (int turn = 0; turn < MESSAGES / 2; turn++) {
        struct epoll_event event;
        pid_t child = must_fork();
        if (child == 0) {
            int own = MUST(epoll_create1(0));
            watch(own, s, EPOLLIN);
            MUST(epoll_wait(own, &event, 1, -1));
            answer_one(s);
            _exit(5);
        }
        await_child(child);
        MUST(epoll_wait(epoll, &event, 1, -1));
        answer_one(s);
    }
    meet();
}

// --- a client that becomes a daemon

static void daemon_near(int s) {
    rounds(s, true, 10);
    meet();
    pid_t child = must_fork();
    if (child == 0) {
        int epoll = MUST(epoll_create1(0));
        watch(epoll, s, EPOLLIN);
        answer_all(epoll, s, false);
        _exit(5);
    }
    SHOW(close(s));
    await_child(child);
    meet();
}

static void daemon_far(int s) {
    rounds(s, false, 10);
    meet();
    wake_near(s);
}

// --- the parent wakes up, and the child sleeps on

static void sleeps_on_near(int s) {
    meet();
    unsigned char bytes[MESSAGE] = {0};
    send_all(s, bytes, sizeof bytes);
    receive_exactly(s, bytes, sizeof bytes);
    meet();
}

static void sleeps_on_far(int s) {
    pid_t child = must_fork();
    if (child == 0) {
        answer_one(s);
        _exit(5);
    }
    wait_until_asleep(child, child);
    struct pollfd entry = {.fd = s, .events = POLLIN};
    SHOW(poll(&entry, 1, 30));
    meet();
    await_child(child);
    meet();
}

// --- children of a process with threads, which close all they have and go

#define THREADS 8
#define FORKS 60

static int connections[THREADS];
static int instances[THREADS];

static void *drive(void *argument) {
    int s = *(int *)argument;
    unsigned char bytes[MESSAGE] = {0};
    for (;;) {
        send_all(s, bytes, sizeof bytes);
        long received = recv(s, bytes, sizeof bytes, MSG_WAITALL);
        if (received != sizeof bytes)
            die("received %ld", received);
        if (bytes[0] == 1)
            return NULL;
    }
}

static void busy_near(int unused) {
    (void)unused;
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        connections[i] = connect_to_far();
        rounds(connections[i], true, 40);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, drive, &connections[i]);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    say("served");
    meet();
}

static volatile bool is_over;

static void *serve(void *argument) {
    int epoll = *(int *)argument;
    for (int left = 1; left > 0;) {
        struct epoll_event event;
        if (MUST(epoll_wait(epoll, &event, 1, -1)) == 0)
            continue;
        unsigned char bytes[MESSAGE];
        receive_exactly(event.data.fd, bytes, sizeof bytes);
        if (is_over) {
            bytes[0] = 1;
            left--;
        }
        send_all(event.data.fd, bytes, sizeof bytes);
    }
    return NULL;
}

static void busy_far(int listener) {
    pthread_t threads[THREADS];
    int ended = 0;
    for (int i = 0; i < THREADS; i++) {
        connections[i] = MUST(accept(listener, NULL, NULL));
        rounds(connections[i], false, 40);
        instances[i] = MUST(epoll_create1(0));
        struct epoll_event event = {.events = EPOLLIN, .data.fd = connections[i]};
        MUST(epoll_ctl(instances[i], EPOLL_CTL_ADD, connections[i], &event));
    }
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, serve, &instances[i]);
    for (int i = 0; i < FORKS; i++) {
        pid_t child = must_fork();
        if (child == 0) {
            for (int j = 0; j < THREADS; j++) {
                close(connections[j]);
                close(instances[j]);
            }
            _exit(5);
        }
        int status;
        MUST(waitpid(child, &status, 0));
        ended += WIFEXITED(status) && WEXITSTATUS(status) == 5;
        // Between two forks they work.
        nap_ms(2);
    }
    say("%d children have gone", ended);
    is_over = true;
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    meet();
}

const struct scenario inheriting_scenarios[] = {
    {"child-watches", CONNECTED, wake_near, level_far},
    {"child-watches-edges", CONNECTED, wake_near, edge_far},
    {"child-watches-given", CONNECTED, wake_near, given_far},
    {"inherited-epoll", CONNECTED, settled_near, inherited_far},
    {"inherited-epoll-edges", CONNECTED, settled_near, inherited_edge_far},
    {"inherited-epoll-polled", CONNECTED, settled_near, polled_far},
    {"inherited-epoll-turns", CONNECTED, settled_near, turns_far},
    {"daemon-watches", CONNECTED, daemon_near, daemon_far},
    {"child-sleeps-on", CONNECTED, sleeps_on_near, sleeps_on_far},
    {"fork-among-threads", LISTENING, busy_near, busy_far},
    {NULL},
};
