// fork: connections that are alive in several processes.
#include "semantics.h"

// Children tell their parent by their exit status that all went well.
static void await_child(const char *what, pid_t child) {
    int status = -1;
    MUST(waitpid(child, &status, 0));
    if (WIFEXITED(status))
        say("%s ended with %d", what, WEXITSTATUS(status));
    else
        say("%s ended by SIG%s", what, signal_name(WTERMSIG(status)));
}

static pid_t must_fork(void) {
    pid_t child = fork();
    if (child < 0)
        die("fork: %s", error_name(errno));
    return child;
}

// --- one child a connection, the parent closes its copy

static void child_serves_near(int unused) {
    (void)unused;
    for (int i = 0; i < 4; i++) {
        int s = connect_to_far();
        rounds(s, true, 60);
        char byte;
        MUST(shutdown(s, SHUT_WR));
        SHOW(read(s, &byte, 1));
        MUST(close(s));
    }
}

static void child_serves_far(int listener) {
    for (int i = 0; i < 4; i++) {
        int s = MUST(accept(listener, NULL, NULL));
        pid_t child = must_fork();
        if (child == 0) {
            close(listener);
            rounds(s, false, 60);
            char byte;
            _exit(read(s, &byte, 1) == 0 ? 7 : 1);
        }
        MUST(close(s));
        await_child("child", child);
    }
}

// --- the same with all of them at once, and the parent accepting

static void children_at_once_near(int unused) {
    (void)unused;
    int sockets[4];
    for (int i = 0; i < 4; i++)
        sockets[i] = connect_to_far();
    for (int round = 0; round < 5; round++)
        for (int i = 0; i < 4; i++)
            rounds(sockets[i], true, 12);
    for (int i = 0; i < 4; i++) {
        char byte;
        MUST(shutdown(sockets[i], SHUT_WR));
        SHOW(read(sockets[i], &byte, 1));
    }
}

static void children_at_once_far(int listener) {
    pid_t children[4];
    for (int i = 0; i < 4; i++) {
        int s = MUST(accept(listener, NULL, NULL));
        children[i] = must_fork();
        if (children[i] == 0) {
            for (int round = 0; round < 5; round++)
                rounds(s, false, 12);
            char byte;
            _exit(read(s, &byte, 1) == 0 ? 7 : 1);
        }
        MUST(close(s));
    }
    for (int i = 0; i < 4; i++)
        await_child("child", children[i]);
}

// --- alive across fork, used by one and the other in turns

static void turns_near(int s) {
    rounds(s, true, 10);
    rounds(s, true, 10);
    rounds(s, true, 10);
    rounds(s, true, 10);
    talk(s);
}

static void turns_far(int s) {
    int ready[2];
    char byte;
    MUST(pipe(ready));
    rounds(s, false, 10);
    pid_t child = must_fork();
    if (child == 0) {
        rounds(s, false, 10);
        if (write(ready[1], "c", 1) != 1)
            _exit(1);
        _exit(0);
    }
    if (read(ready[0], &byte, 1) != 1)
        die("the child wrote nothing");
    await_child("first child", child);
    rounds(s, false, 10);
    child = must_fork();
    if (child == 0) {
        rounds(s, false, 10);
        exit(0);
    }
    await_child("second child", child);
    talk(s);
}

// Both hold it, and hand the word to and fro many times.
static void handing_near(int s) {
    for (int i = 0; i < 40; i++)
        rounds(s, true, 2);
    talk(s);
}

static void handing_far(int s) {
    int to_child[2], to_parent[2];
    char byte;
    MUST(pipe(to_child));
    MUST(pipe(to_parent));
    pid_t child = must_fork();
    for (int i = 0; i < 20; i++) {
        if (child == 0 && read(to_child[0], &byte, 1) != 1)
            _exit(1);
        rounds(s, false, 2);
        if (child == 0 && write(to_parent[1], "p", 1) != 1)
            _exit(1);
        if (child != 0 && (write(to_child[1], "c", 1) != 1 || read(to_parent[0], &byte, 1) != 1))
            die("the child is gone");
    }
    if (child == 0)
        _exit(0);
    await_child("child", child);
    talk(s);
}

// --- a child that has nothing to do with it

static void untouched_near(int s) {
    for (int i = 0; i < 4; i++)
        rounds(s, true, 10);
    talk(s);
}

static void untouched_far(int s) {
    pid_t child = must_fork();
    if (child == 0)
        _exit(0);
    await_child("left at once", child);
    rounds(s, false, 10);
    child = must_fork();
    if (child == 0)
        exit(0);
    await_child("left through exit", child);
    rounds(s, false, 10);
    child = must_fork();
    if (child == 0) {
        close(s);
        _exit(0);
    }
    await_child("closed its copy", child);
    rounds(s, false, 10);
    child = must_fork();
    if (child == 0) {
        pause();
        _exit(0);
    }
    rounds(s, false, 10);
    kill(child, SIGKILL);
    await_child("killed", child);
    talk(s);
}

// A snapshot, as databases make it: the child lives beside the connection and writes a file.
static void snapshot_near(int s) {
    rounds(s, true, 300);
    talk(s);
}

static void snapshot_far(int s) {
    pid_t child = must_fork();
    if (child == 0) {
        FILE *file = tmpfile();
        for (int i = 0; i < 20000; i++)
            fprintf(file, "line %d\n", i);
        exit(fclose(file) == 0 ? 0 : 1);
    }
    rounds(s, false, 300);
    await_child("child", child);
    talk(s);
}

// --- the parent gives it away

static void given_near(int s) {
    rounds(s, true, 40);
    char byte;
    SHOW(read(s, &byte, 1));
}

static void given_far(int s) {
    pid_t child = must_fork();
    if (child == 0) {
        // The parent has closed it by then.
        nap_ms(10);
        rounds(s, false, 40);
        _exit(0);
    }
    SHOW(close(s));
    await_child("child", child);
}

// A child that outlives its parent: a daemon.
static void daemon_near(int s) {
    rounds(s, true, 40);
    char byte;
    SHOW(read(s, &byte, 1));
}

static void daemon_far(int s) {
    pid_t parent = getpid();
    if (must_fork() != 0)
        return;
    for (int i = 0; i < 2000 && getppid() == parent; i++)
        nap_ms(1);
    rounds(s, false, 40);
    say("the child is through");
    _exit(0);
}

// --- data that was there at the fork

static void divided_near(int s) {
    unsigned char bytes[3000];
    pattern(bytes, sizeof bytes, 0, 1);
    send_all(s, bytes, sizeof bytes);
    talk(s);
}

static void divided_far(int s) {
    unsigned char bytes[1000];
    wait_bytes(s, 3000);
    receive_exactly(s, bytes, 1000);
    say_bytes("before", bytes, 1000);
    pid_t child = must_fork();
    if (child == 0) {
        receive_exactly(s, bytes, 1000);
        say_bytes("child", bytes, 1000);
        _exit(0);
    }
    await_child("child", child);
    receive_exactly(s, bytes, 1000);
    say_bytes("parent", bytes, 1000);
    SHOW(recv(s, bytes, 1, MSG_DONTWAIT));
    talk(s);
}

// --- the end of the stream comes when the last copy is closed

static void last_copy_near(int s) {
    struct pollfd entry = {.fd = s, .events = POLLIN};
    meet();
    SHOW(poll(&entry, 1, 30));
    meet();
    char byte;
    SHOW(read(s, &byte, 1));
}

static void last_copy_far(int s) {
    int go[2];
    MUST(pipe(go));
    pid_t child = must_fork();
    if (child == 0) {
        char byte;
        if (read(go[0], &byte, 1) != 1)
            _exit(1);
        _exit(0);
    }
    SHOW(close(s));
    meet();
    meet();
    SHOW(write(go[1], "x", 1));
    await_child("child", child);
}

// shutdown is for all copies.
static void shut_for_all_near(int s) {
    char byte;
    SHOW(read(s, &byte, 1));
    send_all(s, "still", 5);
    meet();
}

static void shut_for_all_far(int s) {
    pid_t child = must_fork();
    if (child == 0) {
        shutdown(s, SHUT_WR);
        _exit(0);
    }
    await_child("child", child);
    SHOW(send(s, "x", 1, MSG_NOSIGNAL));
    char bytes[5];
    receive_exactly(s, bytes, 5);
    say_bytes("received", bytes, 5);
    meet();
}

// --- workers that share a listener

static void workers_near(int unused) {
    (void)unused;
    for (int i = 0; i < 12; i++) {
        int s = connect_to_far();
        rounds(s, true, 50);
        MUST(close(s));
    }
    say("served twelve times");
    meet();
}

static void workers_far(int listener) {
    pid_t workers[3];
    for (int i = 0; i < 3; i++) {
        workers[i] = must_fork();
        while (workers[i] == 0) {
            char byte;
            int s = MUST(accept(listener, NULL, NULL));
            rounds(s, false, 50);
            if (read(s, &byte, 1) != 0)
                die("no end");
            MUST(close(s));
        }
    }
    meet();
    for (int i = 0; i < 3; i++) {
        kill(workers[i], SIGTERM);
        await_child("worker", workers[i]);
    }
}

// With threads beside it, and a fork in one of them.
static void *fork_in_thread(void *argument) {
    int *status = argument;
    for (int i = 0; i < 10; i++) {
        pid_t child = fork();
        if (child == 0)
            _exit(3);
        waitpid(child, status, 0);
    }
    return NULL;
}

static void thread_forks_near(int s) {
    rounds(s, true, 500);
    talk(s);
}

static void thread_forks_far(int s) {
    pthread_t thread;
    int status = -1;
    pthread_create(&thread, NULL, fork_in_thread, &status);
    rounds(s, false, 500);
    pthread_join(thread, NULL);
    say("children ended with %d", WEXITSTATUS(status));
    talk(s);
}

const struct scenario process_scenarios[] = {
    {"child-serves", LISTENING, child_serves_near, child_serves_far},
    {"children-at-once", LISTENING, children_at_once_near, children_at_once_far},
    {"fork-in-turns", CONNECTED, turns_near, turns_far},
    {"fork-to-and-fro", CONNECTED, handing_near, handing_far},
    {"fork-untouched", CONNECTED, untouched_near, untouched_far},
    {"fork-snapshot", CONNECTED, snapshot_near, snapshot_far},
    {"fork-given-away", CONNECTED, given_near, given_far},
    {"fork-daemon", CONNECTED, daemon_near, daemon_far},
    {"fork-divided", CONNECTED, divided_near, divided_far},
    {"fork-last-copy", CONNECTED, last_copy_near, last_copy_far},
    {"fork-shutdown", CONNECTED, shut_for_all_near, shut_for_all_far},
    {"workers", LISTENING, workers_near, workers_far},
    {"thread-forks", CONNECTED, thread_forks_near, thread_forks_far},
    {NULL},
};
