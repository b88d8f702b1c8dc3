// Other programs that get a connection as standard input and output, or that run beside one.
#include "semantics.h"

#include <spawn.h>

extern char **environ;

static void await_child(const char *what, pid_t child) {
    int status = -1;
    MUST(waitpid(child, &status, 0));
    if (WIFEXITED(status))
        say("%s ended with %d", what, WEXITSTATUS(status));
    else
        say("%s ended by SIG%s", what, signal_name(WTERMSIG(status)));
}

static pid_t spawn_on(int s, char *const *arguments) {
    posix_spawn_file_actions_t actions;
    pid_t child = -1;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, s, 0);
    posix_spawn_file_actions_adddup2(&actions, s, 1);
    posix_spawn_file_actions_addclose(&actions, s);
    int error = posix_spawnp(&child, arguments[0], &actions, NULL, arguments, environ);
    if (error)
        die("posix_spawnp %s: %s", arguments[0], error_name(error));
    posix_spawn_file_actions_destroy(&actions);
    return child;
}

static char *const cat[] = {"cat", NULL};

// What is sent comes back as it is.
static void echoed(int s, int count) {
    echo(s, count);
    say("%d echoes", count);
}

static void echo_to_the_end(int s) {
    char byte;
    echoed(s, 100);
    SHOW(shutdown(s, SHUT_WR));
    SHOW(read(s, &byte, 1));
}

// --- as inetd does it: a program for each connection

static void inetd_near(int unused) {
    (void)unused;
    for (int i = 0; i < 3; i++) {
        int s = connect_to_far();
        echo_to_the_end(s);
        MUST(close(s));
    }
}

static void inetd_far(int listener) {
    int s = MUST(accept(listener, NULL, NULL));
    pid_t child = spawn_on(s, cat);
    MUST(close(s));
    await_child("posix_spawn", child);
    s = MUST(accept(listener, NULL, NULL));
    child = fork();
    if (child == 0) {
        dup2(s, 0);
        dup2(s, 1);
        close(s);
        close(listener);
        execvp(cat[0], cat);
        _exit(127);
    }
    MUST(close(s));
    await_child("fork and exec", child);
    s = MUST(accept(listener, NULL, NULL));
    child = vfork();
    if (child == 0) {
        dup2(s, 0);
        dup2(s, 1);
        execvp(cat[0], cat);
        _exit(127);
    }
    MUST(close(s));
    await_child("vfork and exec", child);
}

// --- a connection that has been in use is handed to a program

static void used_near(int s) { echo_to_the_end(s); }

static void used_far(int s) {
    pid_t child = spawn_on(s, cat);
    MUST(close(s));
    await_child("cat", child);
}

// The same to a program that is started without any of this process's settings.
static void bare_far(int s) {
    char *const arguments[] = {"env", "-i", "cat", NULL};
    pid_t child = spawn_on(s, arguments);
    MUST(close(s));
    await_child("cat", child);
}

// This process becomes the program.
static void become_far(int s) {
    dup2(s, 0);
    dup2(s, 1);
    close(s);
    execvp(cat[0], cat);
    die("exec: %s", error_name(errno));
}

// A program borrows it for a while, then it is ours again.
static void borrowed_near(int s) {
    char bytes[64];
    for (int i = 0; i < 3; i++) {
        send_all(s, "a line\n", 7);
        receive_exactly(s, bytes, 11);
        say_bytes("reply", bytes, 11);
        rounds(s, true, 10);
    }
    talk(s);
}

static void borrowed_far(int s) {
    char *const shell[] = {"sh", "-c", "read line; echo \"got $line\"", NULL};
    for (int i = 0; i < 3; i++) {
        await_child("sh", spawn_on(s, shell));
        rounds(s, false, 10);
    }
    talk(s);
}

// --- programs beside it: they get no copy, or one that nobody uses

static void beside_near(int s) {
    for (int i = 0; i < 4; i++)
        rounds(s, true, 10);
    talk(s);
    char byte;
    SHOW(read(s, &byte, 1));
}

static void beside_far(int s) {
    say("system: %d", system("exit 3") >> 8);
    rounds(s, false, 10);
    FILE *pipe = popen("echo from a pipe", "r");
    char line[64] = "";
    say("popen: %s", fgets(line, sizeof line, pipe) ? strtok(line, "\n") : "nothing");
    SHOW(pclose(pipe));
    rounds(s, false, 10);
    MUST(fcntl(s, F_SETFD, FD_CLOEXEC));
    pid_t child = vfork();
    if (child == 0) {
        execlp("true", "true", NULL);
        _exit(127);
    }
    await_child("true", child);
    rounds(s, false, 10);
    // One that sleeps and has no copy does not keep the connection open.
    char *const sleeping[] = {"sleep", "100", NULL};
    posix_spawnp(&child, "sleep", NULL, NULL, sleeping, environ);
    rounds(s, false, 10);
    talk(s);
    SHOW(close(s));
    meet();
    kill(child, SIGKILL);
    await_child("sleep", child);
}

static void beside_near_end(int s) {
    beside_near(s);
    meet();
}

// One that sleeps and has a copy does.
static void kept_open_near(int s) {
    char byte;
    struct pollfd entry = {.fd = s, .events = POLLIN};
    meet();
    SHOW(poll(&entry, 1, 30));
    meet();
    SHOW(read(s, &byte, 1));
}

static void kept_open_far(int s) {
    char *const sleeping[] = {"sleep", "100", NULL};
    pid_t child = spawn_on(s, sleeping);
    SHOW(close(s));
    meet();
    meet();
    kill(child, SIGKILL);
    await_child("sleep", child);
}

// A program that cannot be started leaves all as it was.
static void not_found_far(int s) {
    char *const arguments[] = {"/nonexistent/program", NULL};
    SHOW(execv(arguments[0], arguments));
    pid_t child = vfork();
    if (child == 0) {
        execv(arguments[0], arguments);
        _exit(errno == ENOENT ? 9 : 1);
    }
    await_child("not found", child);
    talk(s);
}

const struct scenario helper_scenarios[] = {
    {"inetd", LISTENING, inetd_near, inetd_far},
    {"exec-after-use", CONNECTED, used_near, used_far},
    {"exec-without-settings", CONNECTED, used_near, bare_far},
    {"exec-in-place", CONNECTED, used_near, become_far},
    {"exec-borrowed", CONNECTED, borrowed_near, borrowed_far},
    {"exec-beside", CONNECTED, beside_near_end, beside_far},
    {"exec-kept-open", CONNECTED, kept_open_near, kept_open_far},
    {"exec-not-found", CONNECTED, talk, not_found_far},
    {NULL},
};
