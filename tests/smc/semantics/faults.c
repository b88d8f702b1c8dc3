// What must not cost or harm anybody: connections that are idle, listeners that have ended, peers that write garbage.
#include "stress.h"

// --- connections through which much has gone, and nothing goes any more

enum { IDLE = 60, MUCH = 300000, AT_MOST_KIB = 40 };

// What this process has of its memory, KiB: of what it shares, its part.
static long memory_kib(void) {
    char line[128];
    long kib = -1;
    FILE *rollup = fopen("/proc/self/smaps_rollup", "re");
    while (rollup && kib < 0 && fgets(line, sizeof line, rollup))
        sscanf(line, "Pss: %ld", &kib);
    if (rollup)
        fclose(rollup);
    return kib;
}

static void use_much(int s, bool first) {
    static char bytes[MUCH];
    rounds(s, first, 20);
    if (first)
        send_all(s, bytes, MUCH);
    receive_exactly(s, bytes, MUCH);
    if (!first)
        send_all(s, bytes, MUCH);
}

static void idle_end(int *sockets, bool first, long before_kib) {
    long now_kib = 0;
    for (int i = 0; i < IDLE; i++)
        use_much(sockets[i], first);
    meet();
    for (int i = 0; i < 80; i++) {
        now_kib = memory_kib();
        if (now_kib - before_kib <= AT_MOST_KIB * IDLE)
            break;
        nap_ms(100);
    }
    remark("KiB an idle connection: %ld", (now_kib - before_kib) / IDLE);
    remark("arenas: %d", arenas());
    say("an idle connection costs at most %d KiB: %d", AT_MOST_KIB, now_kib - before_kib <= AT_MOST_KIB * IDLE);
    meet();
    for (int i = 0; i < IDLE; i++)
        use_much(sockets[i], first);
    say("all of them work");
}

static void idle_near(int unused) {
    (void)unused;
    int sockets[IDLE];
    // What the first one costs once is not what one costs.
    rounds(connect_to_far(), true, 20);
    long before_kib = memory_kib();
    for (int i = 0; i < IDLE; i++)
        sockets[i] = connect_to_far();
    idle_end(sockets, true, before_kib);
}

static void idle_far(int listener) {
    int sockets[IDLE];
    rounds(MUST(accept(listener, NULL, NULL)), false, 20);
    long before_kib = memory_kib();
    for (int i = 0; i < IDLE; i++)
        sockets[i] = MUST(accept(listener, NULL, NULL));
    idle_end(sockets, false, before_kib);
}

// --- of two processes that listen at a port, the one that began ends

static int shared_listener(uint16_t port) {
    struct sockaddr_storage address;
    int s = new_socket(0);
    socklen_t size = address_of_port(&address, port);
    MUST(setsockopt(s, SOL_SOCKET, SO_REUSEPORT, &(int){1}, sizeof(int)));
    MUST(bind(s, (struct sockaddr *)&address, size));
    MUST(listen(s, 8));
    return s;
}

static void heir_near(int unused) {
    (void)unused;
    int ready[2];
    MUST(pipe(ready));
    pid_t first = MUST(fork());
    if (first == 0) {
        uint16_t port = port_of(shared_listener(0));
        if (write(ready[1], &port, sizeof port) == sizeof port)
            pause();
        _exit(1);
    }
    uint16_t port = 0;
    if (read(ready[0], &port, sizeof port) != sizeof port)
        die("no listener");
    trade(port);
    meet();
    MUST(kill(first, SIGKILL));
    MUST(waitpid(first, NULL, 0));
    for (int i = 0; i < 2; i++) {
        int s = connect_to(port);
        rounds(s, true, 60);
        settle(s);
        remark("arenas: %d", arenas());
        talk(s);
        MUST(close(s));
    }
}

static void heir_far(int unused) {
    (void)unused;
    int listener = shared_listener(trade(0));
    meet();
    for (int i = 0; i < 2; i++) {
        int s = MUST(accept(listener, NULL, NULL));
        rounds(s, false, 60);
        settle(s);
        remark("arenas: %d", arenas());
        talk(s);
        MUST(close(s));
    }
}

// --- a peer that writes anything anywhere into what it shares with us

enum { HOSTILE_ROUNDS = 8, HOSTILE_MS = 120 };

// The words by which the two ends of the first connections speak to each other stand in a few places.
enum { HEAD = 28672, CONTROL_OF_ALL = 384 * 16384, STRIDE = 65536 + 4096 };

static void scribble(uint64_t *seed) {
    char line[512];
    FILE *maps = fopen("/proc/self/maps", "re");
    uint64_t until = now_ms() + HOSTILE_MS;
    while (maps && fgets(line, sizeof line, maps)) {
        uint64_t start, end;
        if (!strstr(line, "softrdma-smc-arena") || sscanf(line, "%lx-%lx", &start, &end) != 2)
            continue;
        for (int i = 0; now_ms() < until; i++) {
            uint64_t random, at;
            pattern(&random, sizeof random, 0, ++*seed);
            switch (random % 4) {
            case 0: at = random / 4 % HEAD; break;
            case 1: at = HEAD + random / 4 % (4 * 384); break;
            default: at = HEAD + CONTROL_OF_ALL + random / 4 % 8 * STRIDE + random / 32 % 32; break;
            }
            pattern(&random, sizeof random, 0, ++*seed);
            // Small values hit more than any others.
            *(volatile uint64_t *)(start + at / 8 * 8) = i % 3 ? random : random % 3;
            if (i % 64 == 0)
                nap_ms(1);
        }
    }
    if (maps)
        fclose(maps);
}

static void be_hostile(int listener, uint64_t draws) {
    char bytes[4096];
    int s = MUST(accept(listener, NULL, NULL));
    rounds(s, false, 40);
    settle(s);
    // The one who is written to goes on in its own pace: what it sends is read now and then.
    scribble(&draws);
    while (recv(s, bytes, sizeof bytes, MSG_DONTWAIT) > 0)
        continue;
    scribble(&draws);
    MUST(close(s));
}

// Each time another process: what it shares with the other end is shared with nobody who comes after it.
static void hostile_far(int listener) {
    for (uint64_t i = 0; i < HOSTILE_ROUNDS; i++) {
        int status;
        pid_t child = MUST(fork());
        if (child == 0) {
            be_hostile(listener, (stress_seed() * HOSTILE_ROUNDS + i) * 1000000);
            exit(0);
        }
        MUST(waitpid(child, &status, 0));
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
            die("the process that is hostile ended with %#x", status);
        meet();
    }
}

static void *send_forever(void *argument) {
    static const char bytes[10000];
    int s = *(int *)argument;
    while (send(s, bytes, sizeof bytes, MSG_NOSIGNAL) > 0)
        continue;
    return NULL;
}

static void receive_by(int s, int way) {
    char bytes[4096];
    int epoll = MUST(epoll_create1(EPOLL_CLOEXEC));
    struct epoll_event event = {.events = EPOLLIN | (way == 2 ? EPOLLET : 0)};
    MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, s, &event));
    ssize_t got;
    do {
        if (way > 0)
            MUST(epoll_wait(epoll, &event, 1, 1000));
        got = recv(s, bytes, sizeof bytes, way > 0 ? MSG_DONTWAIT : 0);
    } while (got > 0 || (got < 0 && errno == EAGAIN));
    MUST(close(epoll));
}

// Echoes what an innocent process sends, which has nothing to do with the hostile one.
static void *serve_innocent(void *argument) {
    int s = *(int *)argument;
    char bytes[1000];
    ssize_t got;
    while ((got = recv(s, bytes, sizeof bytes, 0)) > 0)
        send_all(s, bytes, got);
    return NULL;
}

static void be_innocent(uint16_t port, int end) {
    unsigned char bytes[1000], stop;
    int s = connect_to(port);
    for (uint64_t count = 0; read(end, &stop, 1) < 0; count++) {
        pattern(bytes, sizeof bytes, 0, count);
        send_all(s, bytes, sizeof bytes);
        receive_exactly(s, bytes, sizeof bytes);
        if (pattern_holds(bytes, sizeof bytes, 0, count) != sizeof bytes)
            _exit(3);
        if (count > 100)
            nap_ms(1);
    }
    _exit(0);
}

static void hostile_near(int unused) {
    (void)unused;
    int end[2], listener = new_listener(1), status;
    MUST(pipe2(end, O_NONBLOCK));
    pid_t innocent = MUST(fork());
    if (innocent == 0)
        be_innocent(port_of(listener), end[0]);
    int served = MUST(accept(listener, NULL, NULL));
    pthread_t server, sender;
    pthread_create(&server, NULL, serve_innocent, &served);
    for (int i = 0; i < HOSTILE_ROUNDS; i++) {
        int s = connect_to_far();
        rounds(s, true, 40);
        settle(s);
        pthread_create(&sender, NULL, send_forever, &s);
        receive_by(s, i % 3);
        pthread_join(sender, NULL);
        MUST(close(s));
        meet();
    }
    remark("arenas: %d", arenas());
    if (write(end[1], "x", 1) != 1)
        die("write into a pipe");
    MUST(waitpid(innocent, &status, 0));
    say("the connection with the other one is as it was: %d", WIFEXITED(status) && WEXITSTATUS(status) == 0);
    pthread_join(server, NULL);
}

const struct scenario fault_scenarios[] = {
    {"idle-memory", LISTENING, idle_near, idle_far},
    {"second-listener", LISTENING, heir_near, heir_far},
    {"hostile-peer", LISTENING, hostile_near, hostile_far},
    {NULL},
};
