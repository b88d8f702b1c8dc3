// Urgent data: one byte beside the stream, or a mark in it.
#include "semantics.h"

static void say_mark(int s) {
    int at_mark = -1;
    MUST(ioctl(s, SIOCATMARK, &at_mark));
    say("at mark: %d, sockatmark: %d", at_mark, sockatmark(s));
}

static void say_poll(int s) {
    struct pollfd entry = {.fd = s, .events = POLLIN | POLLPRI | POLLOUT | POLLRDBAND};
    int ready = poll(&entry, 1, 0);
    say("poll: %d %s", ready, event_names(entry.revents));
}

static void send_marked(int s) {
    SHOW(send(s, "abc", 3, 0));
    SHOW(send(s, "X", 1, MSG_OOB));
    SHOW(send(s, "def", 3, 0));
    meet();
}

static void urgent_near(int s) {
    meet();
    send_marked(s);
    talk(s);
    SHOW(send(s, "wxyZ", 4, MSG_OOB));
    meet();
    talk(s);
}

// Waits for all that was sent: the urgent byte first, then what follows it.
static void await_marked(int s) {
    meet();
    await(s, POLLPRI);
    nap_ms(5);
}

static void urgent_far(int s) {
    char bytes[16], byte;
    SHOW(recv(s, &byte, 1, MSG_OOB));
    meet();
    await_marked(s);
    say_poll(s);
    int available = 0;
    SHOW(ioctl(s, FIONREAD, &available));
    say("readable: %d", available);
    say_mark(s);
    // A read stops at the mark, whatever is behind it.
    say_bytes("before", bytes, recv(s, bytes, sizeof bytes, 0));
    say_mark(s);
    say_bytes("looked at", &byte, recv(s, &byte, 1, MSG_OOB | MSG_PEEK));
    say_bytes("urgent", &byte, recv(s, &byte, 1, MSG_OOB));
    SHOW(recv(s, &byte, 1, MSG_OOB));
    say_poll(s);
    say_bytes("behind", bytes, recv(s, bytes, sizeof bytes, 0));
    say_mark(s);
    say_poll(s);
    talk(s);
    await_marked(s);
    // Only the last of several bytes is urgent.
    say_bytes("before", bytes, recv(s, bytes, sizeof bytes, 0));
    say_bytes("urgent", &byte, recv(s, &byte, 1, MSG_OOB));
    SHOW(recv(s, bytes, sizeof bytes, MSG_DONTWAIT));
    talk(s);
}

// --- in line

static void inline_near(int s) {
    meet();
    send_marked(s);
    talk(s);
}

static void inline_far(int s) {
    char bytes[16], byte;
    SHOW(setsockopt(s, SOL_SOCKET, SO_OOBINLINE, &(int){1}, sizeof(int)));
    meet();
    await_marked(s);
    say_poll(s);
    say_bytes("before", bytes, recv(s, bytes, sizeof bytes, 0));
    say_mark(s);
    SHOW(recv(s, &byte, 1, MSG_OOB));
    say_bytes("from the mark", bytes, recv(s, bytes, sizeof bytes, 0));
    say_mark(s);
    say_poll(s);
    talk(s);
}

// --- never fetched: the byte is not in the stream

static void unfetched_near(int s) {
    send_marked(s);
    SHOW(send(s, "Y", 1, MSG_OOB));
    SHOW(send(s, "ghi", 3, 0));
    meet();
    talk(s);
}

static void unfetched_far(int s) {
    char bytes[16], byte;
    await_marked(s);
    await_marked(s);
    // The second mark has taken the place of the first.
    say_bytes("before", bytes, recv(s, bytes, sizeof bytes, 0));
    say_mark(s);
    say_bytes("urgent", &byte, recv(s, &byte, 1, MSG_OOB));
    say_bytes("behind", bytes, recv(s, bytes, sizeof bytes, 0));
    talk(s);
}

// --- the signal, and the other ways to wait

static volatile sig_atomic_t urgent_signals;

static void count_urgent(int signal) {
    (void)signal;
    urgent_signals++;
}

static void notice_near(int s) {
    meet();
    send_marked(s);
    meet();
    talk(s);
}

static void notice_far(int s) {
    char bytes[16], byte;
    signal(SIGURG, count_urgent);
    SHOW(fcntl(s, F_SETOWN, getpid()));
    say("owner is this process: %d", fcntl(s, F_GETOWN) == getpid());
    int epoll = MUST(epoll_create1(0));
    struct epoll_event event = {.events = EPOLLPRI, .data.u32 = 1};
    MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, s, &event));
    meet();
    for (int i = 0; i < 5000 && !urgent_signals; i++)
        nap_ms(1);
    say("SIGURG: %d", urgent_signals);
    await_marked(s);
    SHOW(epoll_wait(epoll, &event, 1, 5000));
    say("epoll: %s", event_names(event.events));
    fd_set exceptions;
    FD_ZERO(&exceptions);
    FD_SET(s, &exceptions);
    SHOW(select(s + 1, NULL, NULL, &exceptions, &(struct timeval){5, 0}));
    say_bytes("urgent", &byte, recv(s, &byte, 1, MSG_OOB));
    FD_ZERO(&exceptions);
    FD_SET(s, &exceptions);
    SHOW(select(s + 1, NULL, NULL, &exceptions, &(struct timeval){0, 0}));
    SHOW(epoll_wait(epoll, &event, 1, 0));
    say_bytes("before", bytes, recv(s, bytes, sizeof bytes, 0));
    say_bytes("behind", bytes, recv(s, bytes, sizeof bytes, 0));
    meet();
    talk(s);
}

const struct scenario urgent_scenarios[] = {
    {"urgent", CONNECTED, urgent_near, urgent_far},
    {"urgent-in-line", CONNECTED, inline_near, inline_far},
    {"urgent-not-fetched", CONNECTED, unfetched_near, unfetched_far},
    {"urgent-notice", CONNECTED, notice_near, notice_far},
    {NULL},
};
