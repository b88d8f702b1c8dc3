// Every call that sends or receives, and what it returns.
#include "semantics.h"

#include <sys/mman.h>

// --- near sends by every call, far receives by every call

static void every_send_near(int s) {
    unsigned char bytes[1000];
    pattern(bytes, sizeof bytes, 0, 1);
    struct iovec parts[3] = {{bytes, 10}, {bytes + 10, 0}, {bytes + 10, 90}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 3};
    SHOW(write(s, bytes, 100));
    SHOW(writev(s, parts, 3));
    SHOW(send(s, bytes, 100, 0));
    SHOW(sendto(s, bytes, 100, 0, NULL, 0));
    SHOW(sendmsg(s, &message, 0));
    struct mmsghdr many[2] = {{.msg_hdr = message}, {.msg_hdr = message}};
    SHOW(sendmmsg(s, many, 2, 0));
    say("lengths %u %u", many[0].msg_len, many[1].msg_len);
    SHOW(pwritev2(s, parts, 3, -1, 0));
    meet();
    talk(s);
}

static void every_send_far(int s) {
    unsigned char bytes[800], expected[100];
    pattern(expected, 100, 0, 1);
    for (int i = 0; i < 8; i++) {
        receive_exactly(s, bytes, 100);
        say("message %d holds: %d", i, memcmp(bytes, expected, 100) == 0);
    }
    meet();
    talk(s);
}

static void every_receive_near(int s) {
    unsigned char bytes[100];
    pattern(bytes, sizeof bytes, 0, 2);
    for (int i = 0; i < 8; i++) {
        send_all(s, bytes, 100);
        meet();
    }
    talk(s);
}

static void next(int s) { wait_bytes(s, 100); }

static void every_receive_far(int s) {
    unsigned char bytes[200], more[200];
    struct iovec parts[3] = {{bytes, 60}, {bytes + 60, 0}, {more, 200}};
    next(s);
    SHOW(read(s, bytes, 200));
    meet();
    next(s);
    SHOW(readv(s, parts, 3));
    say_bytes("second part", more, 40);
    meet();
    next(s);
    SHOW(recv(s, bytes, 200, 0));
    say_bytes("recv", bytes, 100);
    meet();
    next(s);
    struct sockaddr_storage address;
    memset(&address, 0x5a, sizeof address);
    socklen_t length = sizeof address;
    SHOW(recvfrom(s, bytes, 200, 0, (struct sockaddr *)&address, &length));
    // A stream names no sender.
    say("address length %u, first byte %#x", length, *(unsigned char *)&address);
    meet();
    next(s);
    char control[256];
    struct msghdr message = {
        .msg_iov = parts, .msg_iovlen = 3, .msg_control = control, .msg_controllen = sizeof control,
        .msg_name = &address, .msg_namelen = sizeof address, .msg_flags = 0x7777,
    };
    SHOW(recvmsg(s, &message, 0));
    say("control %zu, name %u, flags %#x", (size_t)message.msg_controllen, message.msg_namelen, message.msg_flags);
    meet();
    next(s);
    struct mmsghdr many[2] = {
        {.msg_hdr = {.msg_iov = parts, .msg_iovlen = 1}},
        {.msg_hdr = {.msg_iov = parts + 2, .msg_iovlen = 1}},
    };
    SHOW(recvmmsg(s, many, 2, 0, NULL));
    say("lengths %u %u", many[0].msg_len, many[1].msg_len);
    meet();
    next(s);
    SHOW(preadv2(s, parts, 3, -1, 0));
    meet();
    next(s);
    SHOW(recvfrom(s, bytes, 200, MSG_DONTWAIT, NULL, NULL));
    SHOW(recvfrom(s, bytes, 200, MSG_DONTWAIT, NULL, NULL));
    meet();
    talk(s);
}

// --- what does not work on a stream socket, and what works without effect

static void misuse_near(int s) {
    char bytes[10] = "0123456789";
    struct iovec part = {bytes, 10};
    SHOW(pread(s, bytes, 10, 0));
    SHOW(pwrite(s, bytes, 10, 0));
    SHOW(preadv(s, &part, 1, 0));
    SHOW(pwritev(s, &part, 1, 0));
    SHOW(lseek(s, 0, SEEK_CUR));
    SHOW(ftruncate(s, 0));
    SHOW(fsync(s));
    SHOW(listen(s, 1));
    struct sockaddr_storage address;
    socklen_t length = address_of_port(&address, 9);
    SHOW(connect(s, (struct sockaddr *)&address, length));
    SHOW(bind(s, (struct sockaddr *)&address, length));
    SHOW(accept(s, NULL, NULL));
    // Not seen by the compiler, which would warn.
    volatile int minus_one = -1, too_many = 1025;
    SHOW(writev(s, &part, minus_one));
    SHOW(readv(s, &part, minus_one));
    SHOW(writev(s, &part, too_many));
    SHOW(readv(s, &part, too_many));
    SHOW(recvmmsg(s, NULL, 0, MSG_DONTWAIT, NULL));
    SHOW(sendmmsg(s, NULL, 0, MSG_DONTWAIT));
    void *map = mmap(NULL, 4096, PROT_READ, MAP_SHARED, s, 0);
    say("mmap: %s", map == MAP_FAILED ? error_name(errno) : "worked");
    // An address is ignored on a connected stream.
    SHOW(sendto(s, bytes, 10, 0, (struct sockaddr *)&address, length));
    meet();
    talk(s);
}

static void misuse_far(int s) {
    char bytes[10];
    receive_exactly(s, bytes, 10);
    say_bytes("sendto with an address", bytes, 10);
    meet();
    talk(s);
}

// --- bad descriptors

static void bad_descriptors(int s) {
    char bytes[16] = "0123456789abcdef";
    struct iovec part = {bytes, 16};
    int ends[2], closed = MUST(dup(s));
    MUST(pipe(ends));
    MUST(close(closed));
    SHOW(read(closed, bytes, 1));
    SHOW(write(closed, bytes, 1));
    SHOW(read(777, bytes, 1));
    SHOW(write(777, bytes, 1));
    SHOW(readv(777, &part, 1));
    SHOW(writev(777, &part, 1));
    SHOW(recv(-1, bytes, 1, 0));
    SHOW(send(777, bytes, 1, 0));
    SHOW(send(1 << 30, bytes, 1, 0));
    SHOW(fcntl(777, F_GETFL));
    SHOW(close(777));
    SHOW(close(-1));
    SHOW(recv(ends[0], bytes, 1, 0));
    SHOW(send(ends[1], bytes, 1, 0));
    SHOW(read(ends[1], bytes, 1));
    SHOW(write(ends[0], bytes, 1));
    talk(s);
}

// --- bad memory, with every call that takes any

static void bad_memory_near(int s) {
    char bytes[16];
    void *volatile nowhere = (void *)8;
    int epoll = MUST(epoll_create1(0));
    SHOW(send(s, nowhere, 16, 0));
    SHOW(write(s, nowhere, 16));
    SHOW(readv(s, nowhere, 1));
    SHOW(writev(s, nowhere, 1));
    SHOW(sendmsg(s, nowhere, 0));
    SHOW(recvmsg(s, nowhere, MSG_DONTWAIT));
    SHOW(getpeername(s, nowhere, nowhere));
    SHOW(epoll_ctl(epoll, EPOLL_CTL_ADD, s, nowhere));
    SHOW(poll(nowhere, 1, 0));
    SHOW(ioctl(s, FIONREAD, nowhere));
    meet();
    wait_bytes(s, 16);
    SHOW(recv(s, nowhere, 16, 0));
    SHOW(read(s, nowhere, 16));
    // Nothing is lost by that.
    SHOW(read(s, bytes, 16));
    say_bytes("then", bytes, 16);
    talk(s);
}

static void bad_memory_far(int s) {
    meet();
    send_all(s, "the reply bytes.", 16);
    talk(s);
}

// --- many parts

enum { PARTS = 1024 };

static void vectors_near(int s) {
    static unsigned char bytes[PARTS * 37];
    struct iovec parts[PARTS];
    size_t at = 0;
    pattern(bytes, sizeof bytes, 0, 4);
    for (int i = 0; i < PARTS; i++) {
        parts[i] = (struct iovec){bytes + at, i % 3 ? i * 7 % 37 : 0};
        at += parts[i].iov_len;
    }
    say("writev: %d", writev(s, parts, PARTS) == (ssize_t)at);
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = PARTS};
    say("sendmsg: %d", sendmsg(s, &message, MSG_NOSIGNAL) == (ssize_t)at);
    message.msg_iovlen = PARTS + 1;
    SHOW(sendmsg(s, &message, 0));
    trade(at);
    talk(s);
}

static void vectors_far(int s) {
    static unsigned char bytes[PARTS * 37];
    struct iovec parts[PARTS];
    size_t total = trade(0), at = 0;
    for (int i = 0; i < PARTS; i++) {
        parts[i] = (struct iovec){bytes + at, i % 5 ? (i * 11 + 3) % 37 : 0};
        if (parts[i].iov_len > total - at)
            parts[i].iov_len = total - at;
        at += parts[i].iov_len;
    }
    wait_bytes(s, 2 * total);
    say("readv: %zd of %zu", readv(s, parts, PARTS), at);
    say("good: %d", pattern_holds(bytes, at, 0, 4) == at);
    receive_exactly(s, bytes + at, total - at);
    memset(bytes, 0, sizeof bytes);
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = PARTS};
    say("recvmsg: %zd of %zu", recvmsg(s, &message, 0), at);
    say("good: %d", pattern_holds(bytes, at, 0, 4) == at);
    receive_exactly(s, bytes + at, total - at);
    message.msg_iovlen = PARTS + 1;
    SHOW(recvmsg(s, &message, MSG_DONTWAIT));
    talk(s);
}

// --- nothing at all

static void zero_near(int s) {
    struct iovec none[2] = {{NULL, 0}, {NULL, 0}};
    struct msghdr message = {.msg_iov = none, .msg_iovlen = 2}, empty = {0};
    SHOW(write(s, "", 0));
    SHOW(send(s, "", 0, 0));
    SHOW(sendto(s, NULL, 0, 0, NULL, 0));
    SHOW(writev(s, none, 2));
    SHOW(writev(s, none, 0));
    SHOW(sendmsg(s, &message, 0));
    SHOW(sendmsg(s, &empty, 0));
    // Nobody is woken by nothing.
    meet();
    meet();
    SHOW(write(s, "data", 4));
    meet();
    talk(s);
}

static void zero_far(int s) {
    char bytes[8];
    struct iovec none[2] = {{NULL, 0}, {NULL, 0}};
    struct msghdr message = {.msg_iov = none, .msg_iovlen = 2}, empty = {0};
    meet();
    struct pollfd entry = {.fd = s, .events = POLLIN};
    SHOW(poll(&entry, 1, 20));
    SHOW(recv(s, bytes, 8, MSG_DONTWAIT));
    SHOW(read(s, bytes, 0));
    set_nonblocking(s, true);
    SHOW(recv(s, bytes, 0, 0));
    SHOW(readv(s, none, 2));
    SHOW(recvmsg(s, &message, 0));
    set_nonblocking(s, false);
    meet();
    await(s, POLLIN);
    // None of these takes anything.
    SHOW(read(s, bytes, 0));
    SHOW(recv(s, bytes, 0, 0));
    SHOW(recv(s, NULL, 0, MSG_PEEK));
    SHOW(readv(s, none, 2));
    SHOW(recvmsg(s, &message, 0));
    SHOW(recvmsg(s, &empty, 0));
    SHOW(read(s, bytes, 8));
    meet();
    talk(s);
}

// --- control messages

static void control_near(int s) {
    char control[CMSG_SPACE(sizeof(int))];
    memset(control, 0, sizeof control);
    struct iovec part = {"with control", 12};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control,
    };
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    // A descriptor does not travel over TCP: ignored, as of Linux.
    SHOW(sendmsg(s, &message, 0));
    header->cmsg_level = IPPROTO_TCP;
    SHOW(sendmsg(s, &message, 0));
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = 9999;
    SHOW(sendmsg(s, &message, 0));
    message.msg_controllen = 3;
    SHOW(sendmsg(s, &message, 0));
    trade(0);
    talk(s);
}

static void control_far(int s) {
    char bytes[100], control[100];
    struct iovec part = {bytes, sizeof bytes};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control,
    };
    trade(0);
    await(s, POLLIN);
    ssize_t got = SHOW(recvmsg(s, &message, 0));
    say_bytes("received", bytes, got);
    say("control %zu, flags %#x", (size_t)message.msg_controllen, message.msg_flags);
    talk(s);
}

// --- several messages with one call

static void many_messages_near(int s) {
    char bytes[64];
    pattern(bytes, sizeof bytes, 0, 8);
    struct iovec parts[64];
    struct mmsghdr messages[64];
    memset(messages, 0, sizeof messages);
    for (int i = 0; i < 64; i++) {
        parts[i] = (struct iovec){bytes + i % 32, i % 32 + 1};
        messages[i].msg_hdr.msg_iov = parts + i;
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    SHOW(sendmmsg(s, messages, 64, 0));
    unsigned total = 0;
    for (int i = 0; i < 64; i++)
        total += messages[i].msg_len;
    say("total %u", total);
    trade(total);
    talk(s);
}

static void many_messages_far(int s) {
    char bytes[16][128];
    struct iovec parts[16];
    struct mmsghdr messages[16];
    memset(messages, 0, sizeof messages);
    for (int i = 0; i < 16; i++) {
        parts[i] = (struct iovec){bytes[i], 100};
        messages[i].msg_hdr.msg_iov = parts + i;
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    wait_bytes(s, trade(0));
    // Each message fills its buffer; the last takes what is left.
    int count = SHOW(recvmmsg(s, messages, 16, MSG_DONTWAIT, NULL));
    for (int i = 0; i < count; i++)
        say_bytes("part", bytes[i], messages[i].msg_len);
    struct timespec moment = {0, 10 * 1000000};
    SHOW(recvmmsg(s, messages, 16, MSG_DONTWAIT, &moment));
    SHOW(recvmmsg(s, messages, 16, MSG_DONTWAIT | MSG_WAITFORONE, NULL));
    talk(s);
}

// With MSG_WAITFORONE the call waits for the first message and takes the others if they are there.
static void wait_for_one_near(int s) {
    pid_t peer = trade(0);
    wait_until_asleep(peer, peer);
    SHOW(send(s, "only one", 8, 0));
    meet();
    talk(s);
}

static void wait_for_one_far(int s) {
    char bytes[4][8];
    struct iovec parts[4];
    struct mmsghdr messages[4];
    memset(messages, 0, sizeof messages);
    for (int i = 0; i < 4; i++) {
        parts[i] = (struct iovec){bytes[i], 8};
        messages[i].msg_hdr.msg_iov = parts + i;
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    trade(getpid());
    SHOW(recvmmsg(s, messages, 4, MSG_WAITFORONE, NULL));
    say_bytes("first", bytes[0], messages[0].msg_len);
    meet();
    talk(s);
}

// --- names that glibc exports beside the usual ones

extern ssize_t __read(int, void *, size_t);
extern ssize_t __write(int, const void *, size_t);
extern ssize_t __send(int, const void *, size_t, int);
extern int __poll(struct pollfd *, nfds_t, int);
extern int __close(int);
extern int __dup2(int, int);
extern int __fcntl(int, int, ...);

static void other_names(int s) {
    char bytes[64];
    struct pollfd entry = {.fd = s, .events = POLLIN};
    SHOW(__write(s, "first", 5));
    SHOW(__poll(&entry, 1, 5000));
    wait_bytes(s, 5);
    SHOW(__read(s, bytes, sizeof bytes));
    meet();
    SHOW(__send(s, "second", 6, 0));
    wait_bytes(s, 6);
    SHOW(__fcntl(s, F_SETFL, O_RDWR | O_NONBLOCK));
    SHOW(__read(s, bytes, sizeof bytes));
    SHOW(__read(s, bytes, sizeof bytes));
    SHOW(fcntl64(s, F_SETFL, O_RDWR));
    say("dup2: %d", __dup2(s, 700) == 700);
    SHOW(__close(s));
    talk(700);
    SHOW(__close(700));
    SHOW(__close(700));
}

const struct scenario call_scenarios[] = {
    {"every-send", CONNECTED, every_send_near, every_send_far},
    {"every-receive", CONNECTED, every_receive_near, every_receive_far},
    {"misuse", CONNECTED, misuse_near, misuse_far},
    {"bad-descriptors", CONNECTED, bad_descriptors, bad_descriptors},
    {"bad-memory", CONNECTED, bad_memory_near, bad_memory_far},
    {"many-parts", CONNECTED, vectors_near, vectors_far},
    {"zero-length", CONNECTED, zero_near, zero_far},
    {"control-messages", CONNECTED, control_near, control_far},
    {"many-messages", CONNECTED, many_messages_near, many_messages_far},
    {"wait-for-one", CONNECTED, wait_for_one_near, wait_for_one_far},
    {"other-names", CONNECTED, other_names, other_names},
    {NULL},
};
