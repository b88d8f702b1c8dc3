// The flags of send and recv.
#include "semantics.h"

#include <linux/errqueue.h>

// Sends `length` bytes of the pattern after the other end has said where it is and fallen asleep there.
static void send_to_sleeper(int s, const void *bytes, size_t length) {
    pid_t thread = trade(0);
    wait_until_asleep(thread, thread);
    send_all(s, bytes, length);
}

static void about_to_sleep(void) { trade(gettid()); }

// --- MSG_PEEK

static void peek_near(int s) {
    unsigned char bytes[150];
    pattern(bytes, sizeof bytes, 0, 1);
    send_all(s, bytes, 100);
    meet();
    meet();
    send_all(s, bytes + 100, 50);
    meet();
    send_to_sleeper(s, "woken", 5);
    talk(s);
}

static void peek_far(int s) {
    unsigned char bytes[400];
    struct iovec parts[2] = {{bytes, 20}, {bytes + 20, 300}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    meet();
    wait_bytes(s, 100);
    say_bytes("10 of 100", bytes, recv(s, bytes, 10, MSG_PEEK));
    say_bytes("all", bytes, recv(s, bytes, sizeof bytes, MSG_PEEK));
    say_bytes("in parts", bytes, recvmsg(s, &message, MSG_PEEK));
    say_bytes("read", bytes, read(s, bytes, 30));
    say_bytes("the rest", bytes, recv(s, bytes, sizeof bytes, MSG_PEEK));
    meet();
    meet();
    wait_bytes(s, 120);
    say_bytes("over two sends", bytes, recv(s, bytes, sizeof bytes, MSG_PEEK));
    say_bytes("over two sends", bytes, recvfrom(s, bytes, 110, MSG_PEEK | MSG_DONTWAIT, NULL, NULL));
    say_bytes("read", bytes, read(s, bytes, sizeof bytes));
    SHOW(recv(s, bytes, 1, MSG_PEEK | MSG_DONTWAIT));
    about_to_sleep();
    say_bytes("waited", bytes, recv(s, bytes, sizeof bytes, MSG_PEEK));
    say_bytes("read", bytes, recv(s, bytes, sizeof bytes, 0));
    talk(s);
}

// --- MSG_WAITALL

static void waitall_near(int s) {
    unsigned char bytes[1000];
    pattern(bytes, sizeof bytes, 0, 2);
    for (int i = 0; i < 10; i++) {
        nap_ms(2);
        send_all(s, bytes + i * 100, 100);
    }
    meet();
    send_all(s, bytes, 500);
    send_to_sleeper(s, bytes + 500, 500);
    meet();
    send_all(s, bytes, 300);
    meet();
    meet();
    send_all(s, bytes, 50);
    send_to_sleeper(s, bytes + 50, 150);
    talk(s);
    send_all(s, bytes, 70);
    meet();
    SHOW(shutdown(s, SHUT_WR));
}

static void waitall_far(int s) {
    unsigned char bytes[1000];
    struct iovec parts[3] = {{bytes, 100}, {bytes + 100, 700}, {bytes + 800, 200}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 3};
    say_bytes("in ten pieces", bytes, recv(s, bytes, sizeof bytes, MSG_WAITALL));
    meet();
    wait_bytes(s, 500);
    about_to_sleep();
    say_bytes("in parts", bytes, recvmsg(s, &message, MSG_WAITALL));
    meet();
    meet();
    wait_bytes(s, 300);
    // Not waiting is stronger than waiting for all.
    say_bytes("not waiting", bytes, recv(s, bytes, sizeof bytes, MSG_WAITALL | MSG_DONTWAIT));
    SHOW(recv(s, bytes, sizeof bytes, MSG_WAITALL | MSG_DONTWAIT));
    meet();
    wait_bytes(s, 50);
    about_to_sleep();
    say_bytes("looked at", bytes, recv(s, bytes, 200, MSG_PEEK | MSG_WAITALL));
    say_bytes("read", bytes, recv(s, bytes, 200, MSG_WAITALL));
    talk(s);
    meet();
    say_bytes("until the end", bytes, recv(s, bytes, sizeof bytes, MSG_WAITALL));
    say_bytes("after the end", bytes, recv(s, bytes, sizeof bytes, MSG_WAITALL));
}

// What has come before the time is over is returned.
static void waitall_timeout_near(int s) {
    send_all(s, "only this", 9);
    meet();
    talk(s);
}

static void waitall_timeout_far(int s) {
    char bytes[100];
    struct timeval limit = {0, 100000}, none = {0, 0};
    SHOW(setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit));
    uint64_t start = now_ms();
    say_bytes("in time", bytes, recv(s, bytes, sizeof bytes, MSG_WAITALL));
    say("waited: %d", now_ms() - start >= 100);
    SHOW(recv(s, bytes, sizeof bytes, MSG_WAITALL));
    SHOW(setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof none));
    meet();
    talk(s);
}

// --- MSG_TRUNC: bytes are taken and thrown away

static void trunc_near(int s) {
    unsigned char bytes[300];
    pattern(bytes, sizeof bytes, 0, 3);
    send_all(s, bytes, 100);
    send_all(s, bytes + 100, 200);
    talk(s);
}

static void trunc_far(int s) {
    unsigned char bytes[300];
    memset(bytes, 7, sizeof bytes);
    wait_bytes(s, 300);
    SHOW(recv(s, bytes, 50, MSG_TRUNC | MSG_PEEK));
    SHOW(recv(s, NULL, 50, MSG_TRUNC));
    SHOW(recv(s, bytes, 100, MSG_TRUNC));
    say("untouched: %d", bytes[0] == 7 && bytes[99] == 7);
    say_bytes("the rest", bytes, recv(s, bytes, sizeof bytes, 0));
    say("is where it should be: %d", pattern_holds(bytes, 150, 150, 3) == 150);
    SHOW(recv(s, bytes, 100, MSG_TRUNC | MSG_DONTWAIT));
    talk(s);
}

// --- MSG_MORE and TCP_CORK: held back at most, never lost

static void more_near(int s) {
    int on = 1, off = 0;
    SHOW(send(s, "head ", 5, MSG_MORE));
    SHOW(send(s, "body ", 5, MSG_MORE));
    SHOW(send(s, "tail", 4, 0));
    meet();
    SHOW(send(s, "left alone", 10, MSG_MORE));
    meet();
    SHOW(setsockopt(s, IPPROTO_TCP, TCP_CORK, &on, sizeof on));
    SHOW(write(s, "under ", 6));
    SHOW(write(s, "the cork", 8));
    SHOW(setsockopt(s, IPPROTO_TCP, TCP_CORK, &off, sizeof off));
    meet();
    SHOW(setsockopt(s, IPPROTO_TCP, TCP_CORK, &on, sizeof on));
    SHOW(write(s, "never uncorked", 14));
    meet();
    SHOW(send(s, "request", 7, MSG_MORE));
    char bytes[8];
    // A reply to what is still held back would never come: asking for it must let it go.
    say_bytes("reply", bytes, recv(s, bytes, sizeof bytes, 0));
    SHOW(setsockopt(s, IPPROTO_TCP, TCP_CORK, &off, sizeof off));
    talk(s);
}

static void more_far(int s) {
    char bytes[100];
    say_bytes("with one flag less", bytes, recv(s, bytes, 14, MSG_WAITALL));
    meet();
    say_bytes("left alone", bytes, recv(s, bytes, 10, MSG_WAITALL));
    meet();
    say_bytes("uncorked", bytes, recv(s, bytes, 14, MSG_WAITALL));
    meet();
    say_bytes("corked", bytes, recv(s, bytes, 14, MSG_WAITALL));
    meet();
    say_bytes("request", bytes, recv(s, bytes, 7, MSG_WAITALL));
    SHOW(write(s, "reply", 5));
    talk(s);
}

// --- flags without meaning for a stream

static void ignored_near(int s) {
    volatile int unknown = 0x00800000;
    SHOW(send(s, "a", 1, MSG_EOR));
    SHOW(send(s, "b", 1, MSG_CONFIRM));
    SHOW(send(s, "c", 1, MSG_DONTROUTE));
    SHOW(send(s, "d", 1, MSG_NOSIGNAL | MSG_DONTWAIT));
    SHOW(send(s, "e", 1, MSG_ZEROCOPY));
    SHOW(send(s, "f", 1, unknown));
    SHOW(send(s, "g", 1, MSG_PEEK | MSG_WAITALL | MSG_TRUNC));
    SHOW(sendto(s, "h", 1, MSG_FASTOPEN, NULL, 0));
    talk(s);
}

static void ignored_far(int s) {
    char bytes[16];
    volatile int unknown = 0x00800000;
    wait_bytes(s, 7);
    SHOW(recv(s, bytes, 1, MSG_CMSG_CLOEXEC));
    SHOW(recv(s, bytes + 1, 1, MSG_NOSIGNAL | MSG_EOR));
    SHOW(recv(s, bytes + 2, 1, MSG_MORE));
    SHOW(recv(s, bytes + 3, 1, unknown));
    SHOW(recv(s, bytes, 1, MSG_ERRQUEUE));
    SHOW(recv(s, bytes, 1, MSG_ERRQUEUE | MSG_DONTWAIT));
    ssize_t rest = recv(s, bytes + 4, 10, MSG_DONTWAIT);
    say_bytes("all", bytes, rest < 0 ? rest : 4 + rest);
    talk(s);
}

// --- notifications of MSG_ZEROCOPY

static void say_notification(int s) {
    char control[200];
    struct msghdr message = {.msg_control = control, .msg_controllen = sizeof control};
    struct pollfd entry = {.fd = s};
    SHOW(poll(&entry, 1, 5000));
    say("events %s", event_names(entry.revents));
    SHOW(recvmsg(s, &message, MSG_ERRQUEUE));
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
        struct sock_extended_err error;
        memcpy(&error, CMSG_DATA(header), sizeof error);
        say("origin %u, errno %u, sends %u to %u", error.ee_origin, error.ee_errno, error.ee_info, error.ee_data);
    }
}

static void zerocopy_near(int s) {
    static unsigned char bytes[20000];
    pattern(bytes, sizeof bytes, 0, 6);
    SHOW(setsockopt(s, SOL_SOCKET, SO_ZEROCOPY, &(int){1}, sizeof(int)));
    SHOW(send(s, bytes, sizeof bytes, MSG_ZEROCOPY));
    say_notification(s);
    SHOW(send(s, bytes, 100, MSG_ZEROCOPY));
    say_notification(s);
    SHOW(setsockopt(s, SOL_SOCKET, SO_ZEROCOPY, &(int){0}, sizeof(int)));
    talk(s);
}

static void zerocopy_far(int s) {
    static unsigned char bytes[20100];
    receive_exactly(s, bytes, sizeof bytes);
    say_bytes("received", bytes, sizeof bytes);
    talk(s);
}

// --- SO_PEEK_OFF

static void peek_offset_near(int s) {
    send_all(s, "0123456789", 10);
    talk(s);
}

static void peek_offset_far(int s) {
    char bytes[10];
    int offset = 3, off = -1;
    wait_bytes(s, 10);
    if (SHOW(setsockopt(s, SOL_SOCKET, SO_PEEK_OFF, &offset, sizeof offset)) == 0) {
        say_bytes("from 3", bytes, recv(s, bytes, 3, MSG_PEEK));
        say_bytes("from 6", bytes, recv(s, bytes, 3, MSG_PEEK));
        say_bytes("read", bytes, recv(s, bytes, 2, 0));
        say_bytes("from 9", bytes, recv(s, bytes, 3, MSG_PEEK));
        SHOW(setsockopt(s, SOL_SOCKET, SO_PEEK_OFF, &off, sizeof off));
    }
    say_bytes("the rest", bytes, recv(s, bytes, 10, 0));
    talk(s);
}

const struct scenario flag_scenarios[] = {
    {"peek", CONNECTED, peek_near, peek_far},
    {"waitall", CONNECTED, waitall_near, waitall_far},
    {"waitall-timeout", CONNECTED, waitall_timeout_near, waitall_timeout_far},
    {"trunc", CONNECTED, trunc_near, trunc_far},
    {"more-and-cork", CONNECTED, more_near, more_far},
    {"ignored-flags", CONNECTED, ignored_near, ignored_far},
    {"zerocopy", CONNECTED, zerocopy_near, zerocopy_far},
    {"peek-offset", CONNECTED, peek_offset_near, peek_offset_far},
    {NULL},
};
