// A socket program that does what it is told: one command a line on its standard input, one answer a line on its standard output.
// tests/tests/smc_shown.rs runs two of them and looks at what the tools show of them.
//   usage: talker
//          talker without CALL PROGRAM [ARGUMENT...]   runs PROGRAM, for which CALL (a number) fails with EPERM
// Connections are called by their numbers, 0 for the first.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int connections[64], count, listener = -1;

static struct sockaddr_in loopback(int port) {
    return (struct sockaddr_in){AF_INET, htons(port), {htonl(INADDR_LOOPBACK)}, {0}};
}

static long listen_anywhere(void) {
    struct sockaddr_in address = loopback(0);
    socklen_t size = sizeof(address);
    listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (void *)&address, size) != 0 || listen(listener, 64) != 0)
        return -1;
    getsockname(listener, (void *)&address, &size);
    return ntohs(address.sin_port);
}

static long connect_to(int port, int low_water_mark) {
    struct sockaddr_in address = loopback(port);
    int s = socket(AF_INET, SOCK_STREAM, 0);
    if (low_water_mark)
        setsockopt(s, SOL_SOCKET, SO_RCVLOWAT, &low_water_mark, sizeof(low_water_mark));
    connections[count] = s;
    return connect(s, (void *)&address, sizeof(address)) == 0 ? count++ : -1;
}

// Messages of `size` bytes there and back.
static long rounds(int s, int number, int size, int leads) {
    char *bytes = calloc(1, size);
    for (int i = 0; i < number; i++) {
        if (leads && send(s, bytes, size, MSG_NOSIGNAL) != size)
            return -1;
        if (recv(s, bytes, size, MSG_WAITALL) != size)
            return -1;
        if (!leads && send(s, bytes, size, MSG_NOSIGNAL) != size)
            return -1;
    }
    free(bytes);
    return number;
}

// A server that has a process for each connection: the child echoes until the end, the parent is done with it.
static long serve_in_child(int at) {
    pid_t child = fork();
    if (child != 0) {
        close(connections[at]);
        return child;
    }
    char bytes[4096];
    long length;
    while ((length = recv(connections[at], bytes, sizeof(bytes), 0)) > 0)
        if (send(connections[at], bytes, length, MSG_NOSIGNAL) != length)
            break;
    if (at % 2)
        _exit(0);
    // Not what the parent has read ahead.
    fclose(stdin);
    exit(0);
}

static long until_end(int s) {
    char bytes[4096];
    long length, all = 0;
    while ((length = recv(s, bytes, sizeof(bytes), 0)) > 0)
        all += length;
    return length < 0 ? -1 : all;
}

static long obey(const char *command, int at, int number, int size) {
    int s = connections[at & 63];
    if (!strcmp(command, "listen"))
        return listen_anywhere();
    if (!strcmp(command, "connect"))
        return connect_to(at, number);
    if (!strcmp(command, "accept"))
        return (connections[count] = accept(listener, NULL, NULL)) < 0 ? -1 : count++;
    if (!strcmp(command, "lead") || !strcmp(command, "follow"))
        return rounds(s, number, size ? size : 100, command[0] == 'l');
    if (!strcmp(command, "fork"))
        return serve_in_child(at);
    if (!strcmp(command, "send"))
        return send(s, calloc(1, number), number, MSG_NOSIGNAL);
    if (!strcmp(command, "urgent"))
        return send(s, "!", 1, MSG_OOB);
    if (!strcmp(command, "shut"))
        return shutdown(s, SHUT_WR);
    if (!strcmp(command, "end"))
        return until_end(s);
    if (!strcmp(command, "close"))
        return close(s);
    if (!strcmp(command, "wait"))
        return wait(NULL);
    return -1;
}

static int without(int call, char **program) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog all = {sizeof(filter) / sizeof(*filter), filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &all) != 0) {
        perror("seccomp");
        return 77;
    }
    execv(program[0], program);
    return 1;
}

int main(int argc, char **argv) {
    if (argc > 3 && !strcmp(argv[1], "without"))
        return without(atoi(argv[2]), argv + 3);
    char line[256], command[32];
    while (fgets(line, sizeof(line), stdin)) {
        int at = 0, number = 0, size = 0;
        if (sscanf(line, "%31s %d %d %d", command, &at, &number, &size) < 1)
            continue;
        errno = 0;
        long result = obey(command, at, number, size);
        printf("%ld %d\n", result, result < 0 ? errno : 0);
        fflush(stdout);
    }
    return 0;
}
