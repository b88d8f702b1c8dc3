// Signals: calls that are interrupted, calls that start again, and handlers that come at any moment.
#include "semantics.h"

#include <setjmp.h>
#include <sys/time.h>

static volatile sig_atomic_t handled;

static void handle(int signal) {
    (void)signal;
    handled++;
}

static void install(int flags) {
    struct sigaction action = {.sa_handler = handle, .sa_flags = flags};
    MUST(sigaction(SIGUSR1, &action, NULL));
}

// Sends a signal to a thread that is about to fall asleep, as often as told, and lets the peer go on after the last.
struct poker {
    pthread_t thread;
    pthread_t target;
    pid_t target_id;
    int times;
    bool then_meet;
};

static void *poke(void *argument) {
    struct poker *poker = argument;
    for (int i = 0; i < poker->times; i++) {
        wait_until_asleep(getpid(), poker->target_id);
        pthread_kill(poker->target, SIGUSR1);
    }
    if (poker->then_meet) {
        wait_until_asleep(getpid(), poker->target_id);
        meet();
    }
    return NULL;
}

static void start_poker(struct poker *poker, int times, bool then_meet) {
    // Its own thread is to take no signal.
    *poker = (struct poker){.target = pthread_self(), .target_id = gettid(), .times = times, .then_meet = then_meet};
    pthread_create(&poker->thread, NULL, poke, poker);
}

static void say_interrupted(const char *call, ssize_t result) {
    say("%s: %zd %s, handled %d", call, result, result < 0 ? error_name(errno) : "", handled);
}

#define INTERRUPTED(call)                                                                                              \
    do {                                                                                                               \
        struct poker poker;                                                                                            \
        handled = 0;                                                                                                   \
        start_poker(&poker, 1, false);                                                                                 \
        say_interrupted(#call, call);                                                                                  \
        pthread_join(poker.thread, NULL);                                                                              \
    } while (0)

// --- without SA_RESTART everything returns

static void interrupted_near(int s) {
    char bytes[16];
    struct iovec part = {bytes, 16};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    struct mmsghdr messages = {.msg_hdr = message};
    struct pollfd entry = {.fd = s, .events = POLLIN};
    struct epoll_event event = {.events = EPOLLIN};
    int epoll = MUST(epoll_create1(0)), listener = new_listener(1);
    MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, s, &event));
    fd_set set;
    FD_ZERO(&set);
    FD_SET(s, &set);
    install(0);
    INTERRUPTED(read(s, bytes, 16));
    INTERRUPTED(readv(s, &part, 1));
    INTERRUPTED(recv(s, bytes, 16, 0));
    INTERRUPTED(recv(s, bytes, 16, MSG_PEEK));
    INTERRUPTED(recv(s, bytes, 16, MSG_WAITALL));
    INTERRUPTED(recvfrom(s, bytes, 16, 0, NULL, NULL));
    INTERRUPTED(recvmsg(s, &message, 0));
    INTERRUPTED(recvmmsg(s, &messages, 1, 0, NULL));
    INTERRUPTED(accept(listener, NULL, NULL));
    INTERRUPTED(poll(&entry, 1, -1));
    INTERRUPTED(poll(&entry, 1, 20000));
    INTERRUPTED(ppoll(&entry, 1, NULL, NULL));
    INTERRUPTED(select(s + 1, &set, NULL, NULL, NULL));
    INTERRUPTED(pselect(s + 1, &set, NULL, NULL, NULL, NULL));
    INTERRUPTED(epoll_wait(epoll, &event, 1, -1));
    INTERRUPTED(epoll_wait(epoll, &event, 1, 20000));
    INTERRUPTED(epoll_pwait(epoll, &event, 1, -1, NULL));
    INTERRUPTED(epoll_pwait2(epoll, &event, 1, NULL, NULL));
    talk(s);
}

static void interrupted_far(int s) { talk(s); }

// --- with SA_RESTART reading goes on, waiting does not

static void restarted_near(int s) {
    char bytes[16];
    struct poker poker;
    struct pollfd entry = {.fd = s, .events = POLLIN};
    struct epoll_event event = {.events = EPOLLIN};
    struct timeval limit = {20, 0}, none = {0, 0};
    int epoll = MUST(epoll_create1(0));
    MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, s, &event));
    install(SA_RESTART);
    start_poker(&poker, 3, true);
    say_bytes("read", bytes, read(s, bytes, 4));
    pthread_join(poker.thread, NULL);
    say("handled %d", handled);
    start_poker(&poker, 2, true);
    say_bytes("recv", bytes, recv(s, bytes, 4, MSG_WAITALL));
    pthread_join(poker.thread, NULL);
    say("handled %d", handled);
    INTERRUPTED(poll(&entry, 1, -1));
    INTERRUPTED(epoll_wait(epoll, &event, 1, -1));
    INTERRUPTED(select(0, NULL, NULL, NULL, NULL));
    // With a time limit nothing is started again.
    MUST(setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit));
    INTERRUPTED(read(s, bytes, 4));
    MUST(setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof none));
    talk(s);
}

static void restarted_far(int s) {
    for (int i = 0; i < 2; i++) {
        meet();
        send_all(s, "data", 4);
    }
    talk(s);
}

// --- interrupted half-way: what has been moved is returned

static void half_way_near(int s) {
    char bytes[16];
    struct poker poker;
    for (int i = 0; i < 2; i++) {
        install(i ? SA_RESTART : 0);
        meet();
        wait_bytes(s, 6);
        start_poker(&poker, 1, false);
        say_bytes("all of 16", bytes, recv(s, bytes, 16, MSG_WAITALL));
        pthread_join(poker.thread, NULL);
    }
    enum { HUGE_SIZE = 256 << 20 };
    char *huge = calloc(HUGE_SIZE, 1);
    for (int i = 0; i < 2; i++) {
        install(i ? SA_RESTART : 0);
        start_poker(&poker, 1, false);
        ssize_t part = write(s, huge, HUGE_SIZE);
        say("a part was written: %d", part > 0 && part < HUGE_SIZE);
        pthread_join(poker.thread, NULL);
        trade(part);
    }
    install(0);
    size_t full = fill_up(s);
    ssize_t sent;
    do {
        start_poker(&poker, 1, false);
        sent = send(s, huge, 1 << 20, 0);
        full += sent > 0 ? sent : 0;
        pthread_join(poker.thread, NULL);
        // A buffer that grew while we looked away takes some; in the end nothing goes.
    } while (sent > 0);
    say("nothing was written: %s", error_name(errno));
    trade(full);
    talk(s);
}

static void half_way_far(int s) {
    char *huge = malloc(256 << 20);
    for (int i = 0; i < 2; i++) {
        meet();
        send_all(s, "partly", 6);
    }
    for (int i = 0; i < 3; i++)
        receive_exactly(s, huge, trade(0));
    talk(s);
}

// --- a storm of them

static void storm(int flags) {
    struct sigaction action = {.sa_handler = handle, .sa_flags = flags};
    struct itimerval every = {.it_interval = {0, 700}, .it_value = {0, 700}};
    MUST(sigaction(SIGALRM, &action, NULL));
    MUST(setitimer(ITIMER_REAL, &every, NULL));
}

static void calm(void) {
    MUST(setitimer(ITIMER_REAL, &(struct itimerval){{0, 0}, {0, 0}}, NULL));
    say("signals came: %d", handled > 0);
}

static void storm_both(int s) {
    for (int i = 0; i < 2; i++) {
        static char bytes[400000];
        storm(i ? SA_RESTART : 0);
        rounds(s, is_near(), 500);
        for (int j = 0; j < 10; j++) {
            pattern(bytes, sizeof bytes, 0, j);
            if (is_near())
                send_all(s, bytes, sizeof bytes);
            memset(bytes, 0, sizeof bytes);
            receive_exactly(s, bytes, sizeof bytes);
            if (pattern_holds(bytes, sizeof bytes, 0, j) != sizeof bytes)
                die("wrong bytes in message %d", j);
            if (!is_near())
                send_all(s, bytes, sizeof bytes);
        }
        calm();
    }
    talk(s);
}

// --- a handler that writes to a connection of its own

static int handlers_socket = -1;
static volatile sig_atomic_t handler_wrote;

static void write_from_handler(int signal) {
    (void)signal;
    int error = errno;
    if (send(handlers_socket, "h", 1, MSG_DONTWAIT) == 1)
        handler_wrote++;
    errno = error;
}

static void handler_writes_near(int s) {
    int port = trade(0);
    handlers_socket = connect_to(port);
    warm(handlers_socket, true);
    struct sigaction action = {.sa_handler = write_from_handler, .sa_flags = SA_RESTART};
    struct itimerval every = {.it_interval = {0, 500}, .it_value = {0, 500}};
    MUST(sigaction(SIGALRM, &action, NULL));
    MUST(setitimer(ITIMER_REAL, &every, NULL));
    rounds(s, true, 2000);
    MUST(setitimer(ITIMER_REAL, &(struct itimerval){{0, 0}, {0, 0}}, NULL));
    MUST(close(handlers_socket));
    trade(handler_wrote);
    talk(s);
}

static void handler_writes_far(int s) {
    int listener = new_listener(5);
    trade(port_of(listener));
    int other = MUST(accept(listener, NULL, NULL));
    warm(other, false);
    rounds(s, false, 2000);
    long wrote = trade(0), got = 0;
    char byte;
    while (read(other, &byte, 1) == 1)
        got += byte == 'h';
    say("the handler wrote: %d, all came: %d", wrote > 0, got == wrote);
    talk(s);
}

// --- a handler that never returns

static sigjmp_buf way_out;

static void jump(int signal) {
    (void)signal;
    siglongjmp(way_out, 1);
}

static void jump_near(int s) {
    struct sigaction action = {.sa_handler = jump};
    struct poker poker;
    char bytes[16];
    for (volatile int i = 0; i < 3; i++) {
        struct pollfd entry = {.fd = s, .events = POLLIN};
        // Anything in this process may sleep for a moment.
        MUST(sigaction(SIGUSR1, &action, NULL));
        if (sigsetjmp(way_out, 1) == 0) {
            start_poker(&poker, 1, false);
            if (i == 0)
                SHOW(read(s, bytes, 16));
            else if (i == 1)
                SHOW(poll(&entry, 1, -1));
            else
                SHOW(recv(s, bytes, 16, MSG_WAITALL));
            say("not reached");
        }
        pthread_join(poker.thread, NULL);
        say("jumped out");
    }
    talk(s);
}

// Asked for by the kernel: data comes with a signal.
static void async_near(int s) {
    meet();
    send_all(s, "data", 4);
    talk(s);
}

static void async_far(int s) {
    char bytes[16];
    install(0);
    signal(SIGIO, handle);
    MUST(fcntl(s, F_SETOWN, getpid()));
    MUST(fcntl(s, F_SETFL, O_ASYNC | O_NONBLOCK));
    meet();
    for (int i = 0; i < 3000 && !handled; i++)
        nap_ms(1);
    say("SIGIO: %d", handled > 0);
    await(s, POLLIN);
    SHOW(read(s, bytes, 16));
    MUST(fcntl(s, F_SETFL, 0));
    talk(s);
}

const struct scenario signal_scenarios[] = {
    {"interrupted", CONNECTED, interrupted_near, interrupted_far},
    {"restarted", CONNECTED, restarted_near, restarted_far},
    {"interrupted-half-way", CONNECTED, half_way_near, half_way_far},
    {"signal-storm", CONNECTED, storm_both, storm_both},
    {"handler-writes", CONNECTED, handler_writes_near, handler_writes_far},
    {"handler-jumps", CONNECTED, jump_near, interrupted_far},
    {"signal-driven", CONNECTED, async_near, async_far},
    {NULL},
};
