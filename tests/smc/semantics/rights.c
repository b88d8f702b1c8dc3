// SCM_RIGHTS: a connection passed to another process over a unix socket.
#include "semantics.h"

#include <sys/un.h>

static void send_descriptors(int channel, const int *descriptors, int count) {
    char control[CMSG_SPACE(8 * sizeof(int))] = {0};
    struct iovec part = {"d", 1};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = CMSG_SPACE(count * sizeof(int)),
    };
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(header), descriptors, count * sizeof(int));
    if (sendmsg(channel, &message, 0) != 1)
        die("sendmsg: %s", error_name(errno));
}

static int receive_descriptors(int channel, int *descriptors, int flags) {
    char control[CMSG_SPACE(8 * sizeof(int))], byte;
    struct iovec part = {&byte, 1};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control,
    };
    if (recvmsg(channel, &message, flags) != 1)
        die("recvmsg: %s", error_name(errno));
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (!header || header->cmsg_type != SCM_RIGHTS)
        die("no descriptors came");
    int count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    memcpy(descriptors, CMSG_DATA(header), count * sizeof(int));
    return count;
}

static void await_child(pid_t child) {
    int status = -1;
    MUST(waitpid(child, &status, 0));
    say("child ended with %d", status);
}

// --- fresh from accept to a worker, as some servers do it

static void worker_near(int unused) {
    (void)unused;
    for (int i = 0; i < 3; i++) {
        int s = connect_to_far();
        rounds(s, true, 80);
        char byte;
        MUST(shutdown(s, SHUT_WR));
        SHOW(read(s, &byte, 1));
        MUST(close(s));
    }
}

static void worker_far(int listener) {
    int channel[2];
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, channel));
    pid_t child = fork();
    if (child == 0) {
        close(listener);
        for (int i = 0; i < 3; i++) {
            int s;
            char byte;
            receive_descriptors(channel[1], &s, MSG_CMSG_CLOEXEC);
            say("close-on-exec %d", fcntl(s, F_GETFD));
            rounds(s, false, 80);
            SHOW(read(s, &byte, 1));
            MUST(close(s));
        }
        _exit(0);
    }
    for (int i = 0; i < 3; i++) {
        int s = MUST(accept(listener, NULL, NULL));
        send_descriptors(channel[0], &s, 1);
        MUST(close(s));
    }
    await_child(child);
}

// --- one that has been in use

static void used_near(int s) {
    rounds(s, true, 40);
    send_all(s, "0123456789", 10);
    meet();
    rounds(s, true, 40);
    char byte;
    SHOW(read(s, &byte, 1));
}

static void used_far(int s) {
    int channel[2];
    char bytes[16];
    MUST(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, channel));
    pid_t child = fork();
    if (child == 0) {
        // A process that had it before the fork as well, and lets that copy go.
        close(s);
        receive_descriptors(channel[1], &s, 0);
        receive_exactly(s, bytes, 6);
        say_bytes("the child goes on", bytes, 6);
        rounds(s, false, 40);
        _exit(0);
    }
    rounds(s, false, 40);
    meet();
    wait_bytes(s, 10);
    receive_exactly(s, bytes, 4);
    say_bytes("begun", bytes, 4);
    send_descriptors(channel[0], &s, 1);
    MUST(close(s));
    await_child(child);
}

// --- there and back again, and used by both in turns

static void lent_near(int s) {
    for (int i = 0; i < 6; i++)
        rounds(s, true, 20);
    talk(s);
}

static void lent_far(int s) {
    int channel[2];
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, channel));
    pid_t child = fork();
    if (child == 0) {
        close(s);
        for (int i = 0; i < 3; i++) {
            receive_descriptors(channel[1], &s, 0);
            rounds(s, false, 20);
            send_descriptors(channel[1], &s, 1);
            close(s);
        }
        _exit(0);
    }
    for (int i = 0; i < 3; i++) {
        send_descriptors(channel[0], &s, 1);
        if (i == 1)
            SHOW(close(s));
        int back;
        receive_descriptors(channel[0], &back, 0);
        rounds(back, false, 20);
        if (i != 1)
            MUST(close(s));
        s = back;
    }
    await_child(child);
    talk(s);
}

// --- to itself, and lost on the way

static void itself_near(int s) {
    rounds(s, true, 20);
    talk(s);
    char byte;
    SHOW(read(s, &byte, 1));
}

static void itself_far(int s) {
    int channel[2], got[8];
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, channel));
    int three[3] = {s, channel[0], s};
    send_descriptors(channel[0], three, 3);
    SHOW(receive_descriptors(channel[1], got, 0));
    SHOW(close(s));
    rounds(got[0], false, 20);
    SHOW(close(got[0]));
    talk(got[2]);
    send_descriptors(channel[0], got + 2, 1);
    SHOW(close(got[2]));
    // The only copy is in a message that nobody receives.
    SHOW(close(channel[1]));
    SHOW(close(channel[0]));
    SHOW(close(got[1]));
}

// --- a listener is passed on

static void listener_near(int unused) {
    (void)unused;
    for (int i = 0; i < 2; i++) {
        int s = connect_to_far();
        rounds(s, true, 80);
        meet();
        MUST(close(s));
    }
}

static void listener_far(int listener) {
    int channel[2];
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, channel));
    pid_t child = fork();
    if (child == 0) {
        close(listener);
        receive_descriptors(channel[1], &listener, 0);
        for (int i = 0; i < 2; i++) {
            int s = MUST(accept(listener, NULL, NULL));
            rounds(s, false, 80);
            meet();
            char byte;
            SHOW(read(s, &byte, 1));
        }
        _exit(0);
    }
    send_descriptors(channel[0], &listener, 1);
    MUST(close(listener));
    await_child(child);
}

const struct scenario rights_scenarios[] = {
    {"rights-to-a-worker", LISTENING, worker_near, worker_far},
    {"rights-after-use", CONNECTED, used_near, used_far},
    {"rights-lent", CONNECTED, lent_near, lent_far},
    {"rights-to-itself", CONNECTED, itself_near, itself_far},
    {"rights-listener", LISTENING, listener_near, listener_far},
    {NULL},
};
