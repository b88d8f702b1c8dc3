// epoll inside epoll, poll and select; shared by threads; registered early, late and under several numbers.
#include "semantics.h"

static int add(int epoll, int fd, uint32_t events, uint64_t data) {
    return MUST(control(epoll, EPOLL_CTL_ADD, fd, events, data));
}

static void say_wait(const char *when, int epoll, int timeout) {
    struct epoll_event events[8];
    int count = epoll_wait(epoll, events, 8, timeout);
    say("%s: %d %s %lld", when, count, count > 0 ? event_names(events[0].events) : "-",
        count > 0 ? (long long)events[0].data.u64 : -1);
}

// Sends four bytes each time the other end has fallen asleep.
static void feed(int s, int times) {
    for (int i = 0; i < times; i++) {
        pid_t thread = trade(0);
        wait_until_asleep(thread, thread);
        send_all(s, "data", 4);
    }
}

static void empty(int s) {
    char bytes[16];
    ssize_t got = recv(s, bytes, sizeof bytes, MSG_DONTWAIT);
    say("took %zd", got);
}

// --- an epoll descriptor is one itself

static void nested_near(int s) {
    feed(s, 5);
    talk(s);
}

static void nested_far(int s) {
    int inner = new_epoll(), middle = new_epoll(), outer = new_epoll();
    struct pollfd entry = {.fd = outer, .events = POLLIN};
    fd_set set;
    add(inner, s, EPOLLIN, 1);
    add(middle, inner, EPOLLIN, 2);
    add(outer, middle, EPOLLIN, 3);
    say_wait("idle", outer, 0);
    SHOW(poll(&entry, 1, 10));
    trade(gettid());
    say_wait("outer", outer, -1);
    say_wait("middle", middle, 0);
    say_wait("inner", inner, 0);
    empty(s);
    say_wait("emptied", outer, 0);
    trade(gettid());
    SHOW(poll(&entry, 1, -1));
    empty(s);
    SHOW(poll(&entry, 1, 0));
    trade(gettid());
    FD_ZERO(&set);
    FD_SET(outer, &set);
    SHOW(select(outer + 1, &set, NULL, NULL, NULL));
    empty(s);
    trade(gettid());
    entry.fd = inner;
    SHOW(poll(&entry, 1, -1));
    say("events %s", event_names(entry.revents));
    empty(s);
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u64 = 4};
    MUST(epoll_ctl(outer, EPOLL_CTL_MOD, middle, &event));
    trade(gettid());
    say_wait("outer by edge", outer, -1);
    say_wait("outer by edge, again", outer, 10);
    empty(s);
    talk(s);
}

// --- registered before there is a connection

static void early_near(int s) {
    (void)s;
    struct sockaddr_storage address;
    socklen_t length = address_of_port(&address, far_port());
    int level = new_epoll(), edge = new_epoll();
    s = new_socket(SOCK_NONBLOCK);
    add(level, s, EPOLLIN, 1);
    add(edge, s, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, 2);
    say_wait("not connected", level, 0);
    int result = connect(s, (struct sockaddr *)&address, length);
    say("connect: %s", result == 0 || errno == EINPROGRESS ? "under way or done" : error_name(errno));
    struct pollfd entry = {.fd = s, .events = POLLOUT};
    SHOW(poll(&entry, 1, 5000));
    int error = -1;
    SHOW(getsockopt(s, SOL_SOCKET, SO_ERROR, &error, &(socklen_t){sizeof error}));
    say("error %d", error);
    struct epoll_event event;
    SHOW(epoll_wait(edge, &event, 1, 5000));
    say("connected: OUT %d, IN %d", !!(event.events & EPOLLOUT), !!(event.events & EPOLLIN));
    set_nonblocking(s, false);
    warm(s, true);
    settle(s);
    // What the rounds caused.
    while (epoll_wait(edge, &event, 1, 0) > 0)
        continue;
    say_wait("quiet, level", level, 0);
    trade(gettid());
    say_wait("level", level, -1);
    say_wait("edge", edge, -1);
    say_wait("edge, again", edge, 0);
    empty(s);
    trade(gettid());
    say_wait("edge", edge, -1);
    empty(s);
    talk(s);
}

static void early_far(int listener) {
    int epoll = new_epoll();
    add(epoll, listener, EPOLLIN, 1);
    say_wait("listener", epoll, -1);
    int s = MUST(accept(listener, NULL, NULL));
    // Registered before the first byte.
    add(epoll, s, EPOLLIN | EPOLLET, 2);
    warm(s, false);
    settle(s);
    feed(s, 2);
    talk(s);
}

// --- under several numbers, and gone with the last of them

static void numbers_near(int s) {
    feed(s, 2);
    talk(s);
}

static void numbers_far(int s) {
    int epoll = new_epoll(), copy = MUST(dup(s));
    struct epoll_event events[8];
    add(epoll, s, EPOLLIN, 1);
    add(epoll, copy, EPOLLIN, 2);
    trade(gettid());
    struct pollfd entry = {.fd = epoll, .events = POLLIN};
    SHOW(poll(&entry, 1, -1));
    say("both: %d", epoll_wait(epoll, events, 8, 0));
    SHOW(close(s));
    // The registration stays as long as the connection does, and cannot be changed any more.
    say("after one was closed: %d", epoll_wait(epoll, events, 8, 0));
    SHOW(epoll_ctl(epoll, EPOLL_CTL_DEL, s, NULL));
    empty(copy);
    SHOW(epoll_wait(epoll, events, 8, 0));
    trade(gettid());
    SHOW(poll(&entry, 1, -1));
    int high = MUST(fcntl(copy, F_DUPFD_CLOEXEC, 500));
    SHOW(close(copy));
    empty(high);
    // The number can be used for something else.
    int ends[2];
    MUST(pipe(ends));
    say("the pipe took its place: %d", ends[0] == s);
    add(epoll, ends[0], EPOLLIN, 3);
    SHOW(write(ends[1], "p", 1));
    say_wait("the pipe", epoll, 0);
    talk(high);
    SHOW(close(high));
    say_wait("the pipe alone", epoll, 0);
}

// --- signal masks

static volatile sig_atomic_t handled;

static void handle(int signal) {
    (void)signal;
    handled++;
}

static void masks_near(int s) {
    meet();
    send_all(s, "data", 4);
    meet();
    talk(s);
}

static void masks_far(int s) {
    int epoll = new_epoll();
    struct epoll_event event;
    struct pollfd entry = {.fd = s, .events = POLLIN};
    struct timespec moment = {0, 20000000}, negative = {0, -1};
    sigset_t none, user;
    fd_set set;
    sigemptyset(&none);
    sigemptyset(&user);
    sigaddset(&user, SIGUSR1);
    sigaction(SIGUSR1, &(struct sigaction){.sa_handler = handle, .sa_flags = SA_RESTART}, NULL);
    sigprocmask(SIG_BLOCK, &user, NULL);
    add(epoll, s, EPOLLIN, 1);
    raise(SIGUSR1);
    SHOW(epoll_pwait(epoll, &event, 1, 20, NULL));
    SHOW(epoll_pwait(epoll, &event, 1, 20, &user));
    say("handled %d", handled);
    SHOW(epoll_pwait(epoll, &event, 1, 5000, &none));
    say("handled %d", handled);
    raise(SIGUSR1);
    SHOW(ppoll(&entry, 1, &moment, &user));
    SHOW(ppoll(&entry, 1, &(struct timespec){5, 0}, &none));
    say("handled %d", handled);
    raise(SIGUSR1);
    FD_ZERO(&set);
    FD_SET(s, &set);
    SHOW(pselect(s + 1, &set, NULL, NULL, &moment, &user));
    FD_SET(s, &set);
    SHOW(pselect(s + 1, &set, NULL, NULL, &(struct timespec){5, 0}, &none));
    say("handled %d, set %d", handled, !!FD_ISSET(s, &set));
    SHOW(epoll_pwait2(epoll, &event, 1, &moment, NULL));
    SHOW(epoll_pwait2(epoll, &event, 1, &negative, NULL));
    raise(SIGUSR1);
    SHOW(epoll_pwait2(epoll, &event, 1, NULL, &none));
    say("handled %d", handled);
    meet();
    await(s, POLLIN);
    raise(SIGUSR1);
    // What is ready comes before a signal.
    SHOW(epoll_pwait(epoll, &event, 1, -1, &none));
    SHOW(epoll_pwait2(epoll, &event, 1, NULL, &none));
    SHOW(ppoll(&entry, 1, NULL, &none));
    SHOW(pselect(s + 1, &set, NULL, NULL, NULL, &none));
    say("handled %d", handled);
    sigprocmask(SIG_UNBLOCK, &user, NULL);
    say("handled %d", handled);
    empty(s);
    meet();
    talk(s);
}

// --- one epoll, several threads

struct shared {
    int epoll;
    int stop;
    int socket;
    int got;
    pid_t sleeper;
    pthread_mutex_t lock;
};

static void *wait_in_thread(void *argument) {
    struct shared *shared = argument;
    struct epoll_event event;
    for (;;) {
        int count = epoll_wait(shared->epoll, &event, 1, -1);
        if (count != 1)
            die("epoll_wait: %d %s", count, error_name(errno));
        if (event.data.fd == shared->stop)
            return NULL;
        // By one thread at a time: the registration is for once.
        char bytes[512];
        ssize_t got = recv(event.data.fd, bytes, sizeof bytes, MSG_DONTWAIT);
        if (got > 0) {
            pthread_mutex_lock(&shared->lock);
            shared->got += got;
            pthread_mutex_unlock(&shared->lock);
            if (send(event.data.fd, "k", 1, 0) != 1)
                die("send: %s", error_name(errno));
        }
        struct epoll_event again = {.events = EPOLLIN | EPOLLONESHOT, .data.fd = event.data.fd};
        MUST(epoll_ctl(shared->epoll, EPOLL_CTL_MOD, event.data.fd, &again));
    }
}

static void threads_near(int s) {
    char byte;
    for (int i = 0; i < 500; i++) {
        send_all(s, "some bytes", 10);
        receive_exactly(s, &byte, 1);
    }
    meet();
    talk(s);
}

static void threads_far(int s) {
    struct shared shared = {.epoll = new_epoll(), .socket = s, .lock = PTHREAD_MUTEX_INITIALIZER};
    int ends[2];
    MUST(pipe(ends));
    shared.stop = ends[0];
    add(shared.epoll, ends[0], EPOLLIN, ends[0]);
    add(shared.epoll, s, EPOLLIN | EPOLLONESHOT, s);
    pthread_t threads[3];
    for (int i = 0; i < 3; i++)
        pthread_create(threads + i, NULL, wait_in_thread, &shared);
    meet();
    MUST(write(ends[1], "x", 1));
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    say("got %d", shared.got);
    talk(s);
}

// Two epolls, each with a thread that waits exclusively: at least one wakes, and all data is taken.
static void *wait_exclusively(void *argument) {
    struct shared *shared = argument;
    int epoll = new_epoll();
    struct epoll_event event;
    add(epoll, shared->socket, EPOLLIN | EPOLLEXCLUSIVE, 1);
    add(epoll, shared->stop, EPOLLIN, 2);
    for (;;) {
        MUST(epoll_wait(epoll, &event, 1, -1));
        if (event.data.u64 == 2)
            return NULL;
        char bytes[512];
        ssize_t got = recv(shared->socket, bytes, sizeof bytes, MSG_DONTWAIT);
        if (got > 0 && send(shared->socket, bytes, got, 0) != got)
            die("send: %s", error_name(errno));
    }
}

static void exclusive_far(int s) {
    struct shared shared = {.socket = s};
    int ends[2];
    MUST(pipe(ends));
    shared.stop = ends[0];
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        pthread_create(threads + i, NULL, wait_exclusively, &shared);
    meet();
    MUST(write(ends[1], "x", 1));
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    talk(s);
}

static void exclusive_near(int s) {
    char bytes[10];
    // One at a time, so that two threads cannot change the order.
    for (int i = 0; i < 200; i++) {
        send_all(s, "some bytes", 10);
        receive_exactly(s, bytes, 10);
    }
    meet();
    talk(s);
}

// A thread sleeps in epoll_wait while another changes what it waits for.
static void *sleep_in_epoll(void *argument) {
    struct shared *shared = argument;
    struct epoll_event event;
    __atomic_store_n(&shared->sleeper, gettid(), __ATOMIC_SEQ_CST);
    SHOW(epoll_wait(shared->epoll, &event, 1, -1));
    say("data %llu", (unsigned long long)event.data.u64);
    return NULL;
}

static pthread_t start_sleeper(struct shared *shared) {
    pthread_t thread;
    pid_t id;
    shared->sleeper = 0;
    pthread_create(&thread, NULL, sleep_in_epoll, shared);
    while (!(id = __atomic_load_n(&shared->sleeper, __ATOMIC_SEQ_CST)))
        nap_ms(1);
    wait_until_asleep(getpid(), id);
    return thread;
}

static void change(struct shared *shared, int operation, uint32_t events, uint64_t data) {
    struct epoll_event event = {.events = events, .data.u64 = data};
    MUST(epoll_ctl(shared->epoll, operation, shared->socket, &event));
}

static void changed_near(int s) {
    meet();
    send_all(s, "data", 4);
    meet();
    talk(s);
}

static void changed_far(int s) {
    struct shared shared = {.epoll = new_epoll(), .socket = s};
    pthread_t sleeper = start_sleeper(&shared);
    change(&shared, EPOLL_CTL_ADD, EPOLLOUT, 1);
    pthread_join(sleeper, NULL);
    change(&shared, EPOLL_CTL_MOD, 0, 2);
    sleeper = start_sleeper(&shared);
    change(&shared, EPOLL_CTL_MOD, EPOLLOUT, 3);
    pthread_join(sleeper, NULL);
    change(&shared, EPOLL_CTL_MOD, EPOLLIN, 4);
    sleeper = start_sleeper(&shared);
    meet();
    pthread_join(sleeper, NULL);
    change(&shared, EPOLL_CTL_DEL, 0, 0);
    // Data is there when the registration comes.
    sleeper = start_sleeper(&shared);
    change(&shared, EPOLL_CTL_ADD, EPOLLIN | EPOLLET, 5);
    pthread_join(sleeper, NULL);
    empty(s);
    meet();
    talk(s);
}

const struct scenario nested_epoll_scenarios[] = {
    {"epoll-nested", CONNECTED, nested_near, nested_far},
    {"epoll-before-connect", LISTENING, early_near, early_far},
    {"epoll-several-numbers", CONNECTED, numbers_near, numbers_far},
    {"epoll-signal-masks", CONNECTED, masks_near, masks_far},
    {"epoll-threads", CONNECTED, threads_near, threads_far},
    {"epoll-exclusive", CONNECTED, exclusive_near, exclusive_far},
    {"epoll-changed-while-asleep", CONNECTED, changed_near, changed_far},
    {NULL},
};
