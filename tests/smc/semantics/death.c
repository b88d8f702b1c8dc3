// The peer is killed, or stopped: what the survivor sees.
#include "semantics.h"

enum { ALL = POLLIN | POLLOUT | POLLRDHUP };

static void await_death(int unused) {
    (void)unused;
    trade(getpid());
    for (;;)
        pause();
}

static void say_state(const char *when, int s) {
    struct pollfd entry = {.fd = s, .events = ALL};
    int ready = poll(&entry, 1, 0);
    say("%s: poll %d %s", when, ready, event_names(entry.revents));
}

static void say_what_is_left(int s) {
    char bytes[64];
    signal(SIGPIPE, SIG_IGN);
    say_state("after the kill", s);
    for (int i = 0; i < 3; i++)
        say_bytes("read", bytes, recv(s, bytes, 20, MSG_DONTWAIT));
    int error = -1;
    MUST(getsockopt(s, SOL_SOCKET, SO_ERROR, &error, &(socklen_t){sizeof error}));
    say("SO_ERROR: %s", error_name(error));
    SHOW(write(s, "x", 1));
    await(s, POLLHUP | POLLERR);
    SHOW(write(s, "x", 1));
    say_state("after writing", s);
    SHOW(read(s, bytes, 1));
    SHOW(close(s));
}

static void kill_peer(pid_t peer) {
    MUST(kill(peer, SIGKILL));
}

// --- idle

static void idle_near(int s) {
    pid_t peer = trade(0);
    kill_peer(peer);
    await(s, POLLIN);
    say_what_is_left(s);
}

// --- what was on its way to us is still there

static void data_far(int s) {
    send_all(s, "the last words of a process", 27);
    await_death(s);
}

static void data_near(int s) {
    pid_t peer = trade(0);
    wait_bytes(s, 27);
    kill_peer(peer);
    await(s, POLLRDHUP);
    say_what_is_left(s);
}

// --- what was on its way to the peer is lost, and TCP says so

static void unread_near(int s) {
    pid_t peer = trade(0);
    send_all(s, "nobody will read this", 21);
    // It has arrived.
    meet();
    kill_peer(peer);
    await(s, POLLERR | POLLHUP);
    say_what_is_left(s);
}

static void unread_far(int s) {
    trade(getpid());
    wait_bytes(s, 21);
    meet();
    for (;;)
        pause();
}

// --- in the middle of a call of ours: another thread does the killing

struct killer {
    pid_t peer, sleeper;
};

static void *kill_when_asleep(void *argument) {
    struct killer *killer = argument;
    wait_until_asleep(getpid(), killer->sleeper);
    kill_peer(killer->peer);
    return NULL;
}

static pthread_t start_killer(struct killer *killer) {
    pthread_t thread;
    *killer = (struct killer){.peer = trade(0), .sleeper = gettid()};
    pthread_create(&thread, NULL, kill_when_asleep, killer);
    return thread;
}

static void reader_near(int s) {
    struct killer killer;
    char byte;
    pthread_t thread = start_killer(&killer);
    SHOW(read(s, &byte, 1));
    pthread_join(thread, NULL);
    say_what_is_left(s);
}

static void waitall_near(int s) {
    struct killer killer;
    char bytes[100];
    wait_bytes(s, 27);
    pthread_t thread = start_killer(&killer);
    say_bytes("as much as came", bytes, recv(s, bytes, 100, MSG_WAITALL));
    pthread_join(thread, NULL);
    say_what_is_left(s);
}

static void poller_near(int s) {
    struct killer killer;
    struct pollfd entry = {.fd = s, .events = POLLIN};
    pthread_t thread = start_killer(&killer);
    SHOW(poll(&entry, 1, -1));
    say("events %s", event_names(entry.revents));
    pthread_join(thread, NULL);
    say_what_is_left(s);
}

static void epoller_near(int s) {
    struct killer killer;
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET};
    int epoll = MUST(epoll_create1(0));
    MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, s, &event));
    pthread_t thread = start_killer(&killer);
    SHOW(epoll_wait(epoll, &event, 1, -1));
    say("events %s", event_names(event.events));
    pthread_join(thread, NULL);
    say_what_is_left(s);
}

static void writer_near(int s) {
    static char bytes[1 << 20];
    struct killer killer;
    signal(SIGPIPE, SIG_IGN);
    fill_up(s);
    pthread_t thread = start_killer(&killer);
    ssize_t sent;
    while ((sent = write(s, bytes, sizeof bytes)) > 0)
        continue;
    say("blocked write: %zd %s", sent, error_name(errno));
    pthread_join(thread, NULL);
    say_state("after the kill", s);
    SHOW(read(s, bytes, 1));
    SHOW(write(s, bytes, 1));
}

// --- one of two processes that have the connection is killed: nothing happens to it

static void copy_lives_near(int s) {
    pid_t child = trade(0);
    struct pollfd entry = {.fd = s, .events = POLLIN | POLLRDHUP};
    rounds(s, true, 20);
    kill_peer(child);
    SHOW(poll(&entry, 1, 30));
    meet();
    rounds(s, true, 20);
    talk(s);
}

static void copy_lives_far(int s) {
    int status;
    pid_t child = fork();
    while (child == 0)
        pause();
    trade(child);
    rounds(s, false, 20);
    MUST(waitpid(child, &status, 0));
    say("child ended by SIG%s", signal_name(WTERMSIG(status)));
    meet();
    rounds(s, false, 20);
    talk(s);
}

// --- stopped is not dead

static void stopped_near(int s) {
    pid_t peer = trade(0);
    MUST(kill(peer, SIGSTOP));
    size_t total = fill_up(s);
    say("takes at least 64 KiB: %d", total >= 65536);
    SHOW(send(s, "x", 1, MSG_DONTWAIT));
    say_state("full", s);
    MUST(kill(peer, SIGCONT));
    trade(total);
    talk(s);
}

static void stopped_far(int s) {
    trade(getpid());
    size_t total = trade(0);
    char *bytes = malloc(total);
    receive_exactly(s, bytes, total);
    talk(s);
}

// --- a server whose clients die goes on with the others

static void clients_near(int unused) {
    (void)unused;
    for (int i = 0; i < 6; i++) {
        pid_t child = fork();
        if (child == 0) {
            int s = connect_to_far();
            rounds(s, true, 40);
            if (i % 2)
                send_all(s, "in the middle", 13);
            kill_peer(getpid());
        }
        int status;
        MUST(waitpid(child, &status, 0));
        say("client ended by SIG%s", signal_name(WTERMSIG(status)));
        meet();
    }
    int s = connect_to_far();
    rounds(s, true, 40);
    talk(s);
}

static void clients_far(int listener) {
    char bytes[64];
    for (int i = 0; i < 6; i++) {
        int s = MUST(accept(listener, NULL, NULL));
        rounds(s, false, 40);
        ssize_t got = recv(s, bytes, i % 2 ? 13 : 1, MSG_WAITALL);
        say_bytes("got", bytes, got);
        if (i % 2)
            say_bytes("then", bytes, read(s, bytes, 1));
        MUST(close(s));
        meet();
    }
    int s = MUST(accept(listener, NULL, NULL));
    rounds(s, false, 40);
    talk(s);
}

const struct scenario death_scenarios[] = {
    {"kill-idle", CONNECTED, idle_near, await_death},
    {"kill-with-data-for-us", CONNECTED, data_near, data_far},
    {"kill-with-unread-data", CONNECTED, unread_near, unread_far},
    {"kill-while-reading", CONNECTED, reader_near, await_death},
    {"kill-while-waiting-for-all", CONNECTED, waitall_near, data_far},
    {"kill-while-polling", CONNECTED, poller_near, await_death},
    {"kill-while-in-epoll", CONNECTED, epoller_near, await_death},
    {"kill-while-writing", CONNECTED, writer_near, await_death},
    {"kill-one-of-two", CONNECTED, copy_lives_near, copy_lives_far},
    {"stop-and-go-on", CONNECTED, stopped_near, stopped_far},
    {"kill-clients", LISTENING, clients_near, clients_far},
    {NULL},
};
