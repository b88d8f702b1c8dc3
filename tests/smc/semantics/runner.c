// Starts the processes of a scenario, keeps time, and prints what they wrote.
#include "semantics.h"

#include "roles.h"
#include "stress.h"
#include <dirent.h>
#include <getopt.h>
#include <sys/mman.h>
#include <sys/prctl.h>

extern char **environ;

static const struct scenario *const tables[] = {
#define TABLE(name) name##_scenarios,
#include "tables.h"
#undef TABLE
};

enum { NEAR, FAR, ENDS };

static const char *const end_names[ENDS] = {"near", "far"};

struct settings {
    const struct scenario *scenario;
    const char *library[ENDS]; // what to preload, or null
    const char *family;
    int warm;
    int limit_seconds;
    bool swap; // `near` accepts and `far` connects
    bool trace;
};

struct end {
    pid_t process;
    int transcript;
    int status;
    bool ended;
};

static void fail(const char *what) {
    fprintf(stderr, "semantics: %s: %s\n", what, strerror(errno));
    exit(2);
}

static const struct scenario *find(const char *name) {
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        for (const struct scenario *scenario = tables[i]; scenario->name; scenario++)
            if (strcmp(scenario->name, name) == 0)
                return scenario;
    fprintf(stderr, "semantics: no scenario '%s'; 'semantics list' names them\n", name);
    exit(2);
}

static void list(void) {
    static const char *const starts[] = {[CONNECTED] = "connected", [LISTENING] = "listening", [ALONE] = "alone"};
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        for (const struct scenario *scenario = tables[i]; scenario->name; scenario++)
            printf("%s %s\n", scenario->name, starts[scenario->start]);
}

// --- one end

// Puts `from` at the number `to` in the new process and leaves it open there across exec.
static void place(int from, int to) {
    if (from >= 0 && dup2(from, to) < 0)
        fail("dup2");
}

static void mask_child_signal(int how) {
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(how, &child, NULL);
}

static void become(const struct settings *settings, int end, bool accepts, uint16_t port) {
    char port_text[16], warm_text[16];
    snprintf(port_text, sizeof port_text, "%u", port);
    snprintf(warm_text, sizeof warm_text, "%d", settings->warm);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setpgid(0, 0);
    unsetenv("LD_PRELOAD");
    if (settings->library[end])
        setenv("LD_PRELOAD", settings->library[end], 1);
    execle("/proc/self/exe", "semantics", "play", settings->scenario->name, end_names[end],
           accepts ? "accept" : "connect", settings->family, warm_text, port_text, settings->trace ? "trace" : "quiet",
           NULL, environ);
    fail("exec");
}

static void start(const struct settings *settings, struct end *ends, int end, int read_end, int write_end, int port_end,
                  uint16_t port) {
    bool accepts = (end == FAR) != settings->swap;
    ends[end].transcript = memfd_create("transcript", MFD_CLOEXEC);
    if (ends[end].transcript < 0 || fcntl(ends[end].transcript, F_SETFL, O_APPEND) < 0)
        fail("memfd_create");
    ends[end].process = fork();
    if (ends[end].process < 0)
        fail("fork");
    if (ends[end].process == 0) {
        place(ends[end].transcript, TRANSCRIPT_FD);
        place(read_end, MEET_READ_FD);
        place(write_end, MEET_WRITE_FD);
        place(port_end, PORT_FD);
        place(2, TRACE_FD);
        close_range(3, FIRST_CONTROL_FD - 1, 0);
        mask_child_signal(SIG_UNBLOCK);
        become(settings, end, accepts, port);
    }
}

static void make_pipe(int *ends) {
    if (pipe2(ends, O_CLOEXEC) < 0)
        fail("pipe2");
}

// The port that the end which listens has written, or 0 if it did not come to that.
static uint16_t receive_port(int pipe_end, int limit_seconds) {
    struct pollfd entry = {.fd = pipe_end, .events = POLLIN};
    uint16_t port = 0;
    if (poll(&entry, 1, limit_seconds * 1000) == 1 && read(pipe_end, &port, sizeof port) != sizeof port)
        port = 0;
    return port;
}

static void start_both(const struct settings *settings, struct end *ends) {
    int listening = settings->swap ? NEAR : FAR;
    int there[2], back[2], ports[2];
    make_pipe(there);
    make_pipe(back);
    make_pipe(ports);
    start(settings, ends, listening, there[0], back[1], ports[1], 0);
    close(ports[1]);
    uint16_t port = receive_port(ports[0], settings->limit_seconds);
    if (port)
        start(settings, ends, !listening, back[0], there[1], -1, port);
    else
        fprintf(stderr, "semantics: the end that listens did not say where\n");
    for (int i = 0; i < 2; i++) {
        close(there[i]);
        close(back[i]);
    }
    close(ports[0]);
}

// --- the end of it

// What a process that takes too long is doing, for whoever has to find out.
static void explain(const char *end, pid_t process) {
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/%d/task", process);
    DIR *tasks = opendir(path);
    struct dirent *task;
    while (tasks && (task = readdir(tasks))) {
        static const char *const files[] = {"wchan", "syscall"};
        for (size_t i = 0; task->d_name[0] != '.' && i < 2; i++) {
            char name[400];
            snprintf(name, sizeof name, "%s/%s/%s", path, task->d_name, files[i]);
            FILE *file = fopen(name, "re");
            if (file && fgets(line, sizeof line, file))
                fprintf(stderr, "semantics: %s, thread %s, %s: %.*s\n", end, task->d_name, files[i],
                        (int)strcspn(line, "\n"), line);
            if (file)
                fclose(file);
        }
    }
    if (tasks)
        closedir(tasks);
}

static bool all_ended(struct end *ends) {
    bool all = true;
    for (int i = 0; i < ENDS; i++) {
        if (ends[i].process > 0 && !ends[i].ended)
            ends[i].ended = waitpid(ends[i].process, &ends[i].status, WNOHANG) == ends[i].process;
        all &= ends[i].process <= 0 || ends[i].ended;
    }
    return all;
}

// Whether all ended by themselves.
static bool wait_for_all(struct end *ends, int limit_seconds) {
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    uint64_t deadline = now_ms() + limit_seconds * 1000ull;
    while (!all_ended(ends)) {
        if (now_ms() >= deadline)
            return false;
        struct timespec moment = {0, 100 * 1000000};
        sigtimedwait(&child, NULL, &moment);
    }
    return true;
}

static void end_all(struct end *ends) {
    // Before one of them goes on because the other has ended.
    for (int i = 0; i < ENDS; i++)
        if (ends[i].process > 0 && !ends[i].ended)
            explain(end_names[i], ends[i].process);
    for (int i = 0; i < ENDS; i++) {
        if (ends[i].process <= 0)
            continue;
        // What it forked and left behind is in its group.
        kill(-ends[i].process, SIGKILL);
        if (!ends[i].ended)
            waitpid(ends[i].process, &ends[i].status, 0);
    }
}

static void print_transcript(const char *end, int file) {
    char line[2048];
    FILE *lines = fdopen(file, "r");
    rewind(lines);
    while (fgets(line, sizeof line, lines)) {
        if (line[0] == '#')
            printf("# %s: %s", end, line + 1);
        else
            printf("%s| %s", end, line);
    }
    fclose(lines);
}

static int run(const struct settings *settings) {
    struct end ends[ENDS] = {{0}, {0}};
    if (settings->scenario->start == ALONE)
        start(settings, ends, NEAR, -1, -1, -1, 0);
    else
        start_both(settings, ends);
    bool in_time = wait_for_all(ends, settings->limit_seconds);
    end_all(ends);
    for (int i = 0; i < ENDS; i++) {
        if (ends[i].process <= 0)
            continue;
        print_transcript(end_names[i], ends[i].transcript);
        if (!in_time && !ends[i].ended)
            printf("%s TOOK TOO LONG\n", end_names[i]);
        else if (WIFSIGNALED(ends[i].status))
            printf("%s ended by SIG%s\n", end_names[i], signal_name(WTERMSIG(ends[i].status)));
        else
            printf("%s ended with %d\n", end_names[i], WEXITSTATUS(ends[i].status));
    }
    return in_time ? 0 : 1;
}

static int usage(void) {
    fprintf(stderr, "usage: semantics list\n"
                    "       semantics run SCENARIO [--near-library FILE] [--far-library FILE] [--family 4|6]\n"
                    "                     [--warm ROUNDS] [--swap] [--limit SECONDS] [--trace]\n");
    return 2;
}

static int parse_and_run(int count, char **arguments) {
    static const struct option options[] = {
        {"near-library", required_argument, NULL, 'n'}, {"far-library", required_argument, NULL, 'f'},
        {"family", required_argument, NULL, '4'},       {"warm", required_argument, NULL, 'w'},
        {"swap", no_argument, NULL, 's'},               {"limit", required_argument, NULL, 'l'},
        {"trace", no_argument, NULL, 't'},              {NULL, 0, NULL, 0},
    };
    struct settings settings = {.family = "4", .warm = 32, .limit_seconds = 20};
    for (int option; (option = getopt_long(count, arguments, "", options, NULL)) != -1;) {
        switch (option) {
        case 'n': settings.library[NEAR] = optarg; break;
        case 'f': settings.library[FAR] = optarg; break;
        case '4': settings.family = optarg; break;
        case 'w': settings.warm = atoi(optarg); break;
        case 's': settings.swap = true; break;
        case 'l': settings.limit_seconds = atoi(optarg); break;
        case 't': settings.trace = true; break;
        default: return usage();
        }
    }
    if (optind + 1 != count)
        return usage();
    settings.scenario = find(arguments[optind]);
    // Who listens is part of the other scenarios.
    settings.swap = settings.swap && settings.scenario->start == CONNECTED;
    return run(&settings);
}

int main(int count, char **arguments) {
    if (count == 9 && strcmp(arguments[1], "play") == 0) {
        role = (struct role){
            .is_near = strcmp(arguments[3], end_names[NEAR]) == 0,
            .accepts = strcmp(arguments[4], "accept") == 0,
            .family = strcmp(arguments[5], "6") == 0 ? AF_INET6 : AF_INET,
            .warm = atoi(arguments[6]),
            .port = atoi(arguments[7]),
            .trace = strcmp(arguments[8], "trace") == 0,
        };
        play(find(arguments[2]));
    }
    if (count == 6 && strcmp(arguments[1], "victim") == 0) {
        role = (struct role){.family = strcmp(arguments[4], "6") == 0 ? AF_INET6 : AF_INET};
        be_victim(count - 2, arguments + 2);
    }
    if (count == 2 && strcmp(arguments[1], "list") == 0) {
        list();
        return 0;
    }
    if (count >= 3 && strcmp(arguments[1], "run") == 0) {
        // So that the end of a child interrupts the wait for it.
        mask_child_signal(SIG_BLOCK);
        return parse_and_run(count - 1, arguments + 1);
    }
    return usage();
}
