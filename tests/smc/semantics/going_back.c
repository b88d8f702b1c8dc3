// Another program gets a connection while the other end does this or that, with bytes on their way in both directions.
#include "semantics.h"

#include <spawn.h>

extern char **environ;

enum { LARGE = 3 << 20 };

static void await_child(const char *what, pid_t child) {
    int status = -1;
    MUST(waitpid(child, &status, 0));
    say("%s ended with %d", what, WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status));
}

static pid_t spawn_cat(int s) {
    static char *const cat[] = {"cat", NULL};
    posix_spawn_file_actions_t actions;
    pid_t child = -1;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, s, 0);
    posix_spawn_file_actions_adddup2(&actions, s, 1);
    if (posix_spawnp(&child, "cat", &actions, NULL, cat, environ))
        die("posix_spawnp");
    posix_spawn_file_actions_destroy(&actions);
    return child;
}

static void become_cat(int s) {
    dup2(s, 0);
    dup2(s, 1);
    close(s);
    execlp("cat", "cat", (char *)NULL);
    die("exec: %s", error_name(errno));
}

// What is sent comes back, and then the end.
static void echoed(int s, int count) {
    echo(s, count);
    char byte;
    SHOW(shutdown(s, SHUT_WR));
    SHOW(read(s, &byte, 1));
}

// --- the other end is asleep, in one call or another

static void cat_far(int s) {
    pid_t peer = trade(0);
    wait_until_asleep(peer, peer);
    send_all(s, "before\n", 7);
    become_cat(s);
}

static void read_near(int s) {
    char bytes[7];
    trade(getpid());
    receive_exactly(s, bytes, 7);
    say_bytes("before", bytes, 7);
    echoed(s, 40);
}

static void poll_near(int s) {
    char bytes[7];
    trade(getpid());
    await(s, POLLIN);
    receive_exactly(s, bytes, 7);
    say_bytes("before", bytes, 7);
    echoed(s, 40);
}

static void select_near(int s) {
    char bytes[7];
    fd_set reading;
    FD_ZERO(&reading);
    FD_SET(s, &reading);
    trade(getpid());
    SHOW(select(s + 1, &reading, NULL, NULL, NULL));
    receive_exactly(s, bytes, 7);
    say_bytes("before", bytes, 7);
    echoed(s, 40);
}

static void await_epoll(int epoll, uint32_t events) {
    struct epoll_event event;
    do
        if (epoll_wait(epoll, &event, 1, 10000) != 1)
            die("waited in vain for %s", event_names(events));
    while (!(event.events & events));
    if (event.data.u64 != 0x1234567890abcdef)
        die("event with wrong data");
}

// All of it by events, which must go on when the kernel has the connection again.
static void by_events(int s, uint32_t how) {
    unsigned char bytes[2000], byte;
    int epoll = MUST(epoll_create1(0));
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | how, .data.u64 = 0x1234567890abcdef};
    set_nonblocking(s, true);
    MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, s, &event));
    trade(getpid());
    for (int i = -1; i < 60; i++) {
        size_t size = i < 0 ? 7 : 1 + i * 97 % sizeof bytes;
        pattern(bytes, size, 0, i);
        for (size_t sent = 0; i >= 0 && sent < size;) {
            ssize_t more = write(s, bytes + sent, size - sent);
            if (more < 0)
                await_epoll(epoll, EPOLLOUT);
            else
                sent += more;
        }
        for (size_t got = 0; got < size;) {
            ssize_t more = read(s, bytes + got, size - got);
            if (more < 0)
                await_epoll(epoll, EPOLLIN);
            else if (more == 0)
                die("the end in echo %d", i);
            else
                got += more;
        }
        if (i >= 0 && pattern_holds(bytes, size, 0, i) != size)
            die("echo %d is wrong", i);
    }
    SHOW(shutdown(s, SHUT_WR));
    while (read(s, &byte, 1) < 0)
        await_epoll(epoll, EPOLLIN);
    say("echoed");
}

// What is watched in turns the kernel is not told of each time, until it has the connection again.
static void in_turns_near(int s) {
    unsigned char bytes[8];
    int epoll = MUST(epoll_create1(0));
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 0x1234567890abcdef}, found;
    MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, s, &event));
    MUST(epoll_ctl(epoll, EPOLL_CTL_DEL, s, NULL));
    trade(getpid());
    await(s, POLLIN);
    receive_exactly(s, bytes, 7);
    send_all(s, "again", 5);
    await(s, POLLIN);
    SHOW(epoll_wait(epoll, &found, 1, 50));
    SHOW(epoll_ctl(epoll, EPOLL_CTL_DEL, s, NULL));
    SHOW(epoll_ctl(epoll, EPOLL_CTL_MOD, s, &event));
    SHOW(epoll_ctl(epoll, EPOLL_CTL_ADD, s, &event));
    SHOW(epoll_ctl(epoll, EPOLL_CTL_ADD, s, &event));
    for (int i = 0; i < 20; i++) {
        await_epoll(epoll, EPOLLIN);
        receive_exactly(s, bytes, 5);
        MUST(epoll_ctl(epoll, EPOLL_CTL_DEL, s, NULL));
        MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, s, &event));
        send_all(s, "again", 5);
    }
    await_epoll(epoll, EPOLLIN);
    receive_exactly(s, bytes, 5);
    say_bytes("again", bytes, 5);
    SHOW(shutdown(s, SHUT_WR));
    await_epoll(epoll, EPOLLIN);
    SHOW(read(s, bytes, 1));
}

static void level_near(int s) { by_events(s, 0); }
static void edge_near(int s) { by_events(s, EPOLLET); }

static void events_far(int s) {
    trade(0);
    nap_ms(20);
    send_all(s, "before\n", 7);
    become_cat(s);
}

// Nothing is called there for a while.
static void busy_near(int s) {
    char bytes[7];
    meet();
    for (uint64_t end = now_ms() + 300; now_ms() < end;)
        continue;
    receive_exactly(s, bytes, 7);
    say_bytes("before", bytes, 7);
    echoed(s, 40);
}

static void busy_far(int s) {
    send_all(s, "before\n", 7);
    meet();
    become_cat(s);
}

// It is a child of fork that has the connection; its parent has none.
static void child_near(int s) {
    pid_t child = fork();
    if (child == 0) {
        char bytes[7];
        rounds(s, true, 4);
        meet();
        receive_exactly(s, bytes, 7);
        say_bytes("before", bytes, 7);
        echoed(s, 40);
        _exit(0);
    }
    MUST(close(s));
    await_child("child", child);
}

static void child_far(int s) {
    rounds(s, false, 4);
    send_all(s, "before\n", 7);
    meet();
    become_cat(s);
}

// --- bytes that nobody has read yet

static void unread_near(int s) {
    unsigned char bytes[9000];
    pattern(bytes, 9000, 0, 1);
    send_all(s, bytes, 9000);
    meet();
    meet();
    receive_exactly(s, bytes, 5000);
    say("theirs: %d", pattern_holds(bytes, 5000, 0, 2) == 5000);
    receive_exactly(s, bytes, 8000);
    say("ours, but for what was read: %d", pattern_holds(bytes, 8000, 1000, 1) == 8000);
    echoed(s, 20);
}

static void unread_far(int s) {
    unsigned char bytes[5000];
    meet();
    receive_exactly(s, bytes, 1000);
    say("begun: %d", pattern_holds(bytes, 1000, 0, 1) == 1000);
    pattern(bytes, 5000, 0, 2);
    send_all(s, bytes, 5000);
    meet();
    become_cat(s);
}

// More than TCP's buffers hold, from a thread that waits for room all the while.
static void *send_large(void *argument) {
    int s = *(int *)argument;
    unsigned char *bytes = malloc(LARGE);
    pattern(bytes, LARGE, 0, 3);
    send_all(s, bytes, LARGE);
    MUST(shutdown(s, SHUT_WR));
    free(bytes);
    return NULL;
}

static void large_near(int s) {
    static unsigned char bytes[LARGE];
    pthread_t thread;
    char byte;
    SHOW(setsockopt(s, SOL_SOCKET, SO_SNDBUF, &(int){20000}, sizeof(int)));
    pthread_create(&thread, NULL, send_large, &s);
    nap_ms(50);
    meet();
    receive_exactly(s, bytes, LARGE);
    pthread_join(thread, NULL);
    say("all came back: %d", pattern_holds(bytes, LARGE, 0, 3) == LARGE);
    SHOW(read(s, &byte, 1));
}

static void large_far(int s) {
    meet();
    become_cat(s);
}

// Both send all the while, and one gives the connection away in the middle, again and again; what was moved once stays TCP.
static void load_near(int s) {
    static unsigned char bytes[LARGE];
    pthread_t thread;
    char byte;
    pthread_create(&thread, NULL, send_large, &s);
    meet();
    receive_exactly(s, bytes, LARGE);
    pthread_join(thread, NULL);
    say("all came back: %d", pattern_holds(bytes, LARGE, 0, 3) == LARGE);
    SHOW(read(s, &byte, 1));
}

static void load_far(int s) {
    unsigned char bytes[10000];
    meet();
    for (int i = 0; i < 100; i++) {
        ssize_t got = read(s, bytes, sizeof bytes);
        if (got <= 0)
            die("read: %zd", got);
        send_all(s, bytes, got);
    }
    become_cat(s);
}

// --- halves

static void half_near(int s) {
    char bytes[8];
    send_all(s, "request\n", 8);
    SHOW(shutdown(s, SHUT_WR));
    meet();
    receive_exactly(s, bytes, 8);
    say_bytes("reply", bytes, 8);
    SHOW(read(s, bytes, 1));
}

static void half_far(int s) {
    meet();
    become_cat(s);
}

static void own_half_near(int s) {
    char bytes[8];
    SHOW(read(s, bytes, 1));
    send_all(s, "request\n", 8);
    SHOW(shutdown(s, SHUT_WR));
    meet();
}

static void own_half_far(int s) {
    char bytes[16];
    SHOW(shutdown(s, SHUT_WR));
    int channel[2];
    MUST(pipe(channel));
    pid_t child = vfork();
    if (child == 0) {
        dup2(s, 0);
        dup2(channel[1], 1);
        execlp("cat", "cat", (char *)NULL);
        _exit(127);
    }
    close(channel[1]);
    await_child("cat", child);
    say_bytes("request", bytes, read(channel[0], bytes, sizeof bytes));
    meet();
}

// --- the other end has closed, with bytes on their way that only memory has: who is executed must not take them for all

static void closed_near(int s) {
    send_all(s, "bytes\n", 6);
    SHOW(close(s));
    meet();
    meet();
}

static void closed_far(int s) {
    meet();
    wait_bytes(s, 6);
    int channel[2], status;
    char bytes[16];
    MUST(pipe(channel));
    pid_t child = vfork();
    if (child == 0) {
        dup2(s, 0);
        dup2(channel[1], 1);
        close(2);
        execlp("cat", "cat", (char *)NULL);
        _exit(127);
    }
    close(channel[1]);
    ssize_t got = read(channel[0], bytes, sizeof bytes);
    MUST(waitpid(child, &status, 0));
    bool has_all = got == 6 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    bool has_failed = got == 0 && WIFEXITED(status) && WEXITSTATUS(status) == 1;
    say("all, or an error: %d", has_all || has_failed);
    // What nobody has read is there still.
    if (has_failed)
        SHOW(read(s, bytes, sizeof bytes));
    else
        say("read(s, bytes, sizeof bytes) = 6");
    SHOW(read(s, bytes, sizeof bytes));
    meet();
}

// --- both ends are given away

static void both_near(int s) {
    char *const shell[] = {"sh", "-c", "echo question; read answer; echo got $answer >&9", NULL};
    int channel[2];
    char bytes[32];
    MUST(pipe(channel));
    meet();
    pid_t child = fork();
    if (child == 0) {
        dup2(s, 0);
        dup2(s, 1);
        dup2(channel[1], 9);
        execvp(shell[0], shell);
        _exit(127);
    }
    close(channel[1]);
    await_child("sh", child);
    ssize_t length = read(channel[0], bytes, sizeof bytes);
    say_bytes("written", bytes, length);
    meet();
    meet();
}

static void both_far(int s) {
    meet();
    pid_t child = spawn_cat(s);
    MUST(close(s));
    meet();
    kill(child, SIGKILL);
    await_child("cat", child);
    meet();
}

// --- the other end is killed while it is asked

static void killed_near(int s) {
    rounds(s, true, 4);
    meet();
    nap_ms(3);
    raise(SIGKILL);
}

static void killed_far(int s) {
    char byte;
    rounds(s, false, 4);
    meet();
    int low = 5;
    setsockopt(s, SOL_SOCKET, SO_RCVLOWAT, &low, sizeof low);
    ssize_t got = read(s, &byte, 1);
    say("the end or a reset: %d", got == 0 || errno == ECONNRESET);
}

const struct scenario going_back_scenarios[] = {
    {"back-read", CONNECTED, read_near, cat_far},
    {"back-poll", CONNECTED, poll_near, cat_far},
    {"back-select", CONNECTED, select_near, cat_far},
    {"back-epoll", CONNECTED, level_near, events_far},
    {"back-epoll-edges", CONNECTED, edge_near, events_far},
    {"back-in-turns", CONNECTED, in_turns_near, events_far},
    {"back-busy", CONNECTED, busy_near, busy_far},
    {"back-child", CONNECTED, child_near, child_far},
    {"back-unread", CONNECTED, unread_near, unread_far},
    {"back-large", CONNECTED, large_near, large_far},
    {"back-load", CONNECTED, load_near, load_far},
    {"back-half", CONNECTED, half_near, half_far},
    {"back-own-half", CONNECTED, own_half_near, own_half_far},
    {"back-peer-closed", CONNECTED, closed_near, closed_far},
    {"back-both", CONNECTED, both_near, both_far},
    {"back-killed", CONNECTED, killed_near, killed_far},
    {NULL},
};
