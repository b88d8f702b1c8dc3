// A peer that is killed at any moment, under load, again and again: the survivor sees what TCP may show, and keeps
// nothing of it. SEMANTICS_SEED sets the seed, SEMANTICS_ROUNDS how many are killed.
#include "stress.h"

#include <dirent.h>

enum { FOREVER = 1 << 30 };

// Most die while they get going, some at work.
static const uint32_t longest_lives_us[] = {3000, 12000, 12000, 50000};

// What the ends of a connection are from here on.
static uint64_t bytes_seed(uint64_t round_seed, bool of_victim) { return 2 * round_seed + of_victim; }

static struct stream endless(int socket, uint64_t round_seed, bool of_victim, uint64_t draws) {
    return (struct stream){socket, bytes_seed(round_seed, of_victim), 0, FOREVER, false, {draws, 0}};
}

// --- the victim

static void *send_until_killed(void *argument) {
    struct stream *stream = argument;
    for (;;) {
        ssize_t sent = send_some(stream, false);
        if (sent < 0 && errno == EAGAIN)
            await(stream->socket, POLLOUT);
        else if (sent < 0)
            die("victim of seed %llu: send: %s", (unsigned long long)stream->draws.seed, error_name(errno));
        else
            stream->at += sent;
        if (draw(&stream->draws, 50) == 0)
            nap_ms(1);
    }
}

// arguments: listen|connect PORT FAMILY SEED
void be_victim(int count, char **arguments) {
    if (count != 4)
        _exit(2);
    uint64_t seed = strtoull(arguments[3], NULL, 10);
    int s;
    if (strcmp(arguments[0], "listen") == 0) {
        int listener = new_listener(1);
        uint16_t port = port_of(listener);
        if (write(1, &port, sizeof port) != sizeof port)
            _exit(2);
        s = MUST(accept(listener, NULL, NULL));
    } else {
        s = connect_to(atoi(arguments[1]));
    }
    struct stream out = endless(s, seed, true, seed + 1), in = endless(s, seed, false, seed + 2);
    pthread_t sender;
    pthread_create(&sender, NULL, send_until_killed, &out);
    for (;;) {
        ssize_t got = receive_some(&in);
        if (got < 0 && errno == EAGAIN)
            await(s, POLLIN);
        else if (got <= 0)
            die("victim of seed %llu: receive: %zd %s", (unsigned long long)seed, got, error_name(errno));
        else
            in.at += got;
    }
}

// --- the survivor

struct victim {
    pid_t process;
    uint16_t port; // if it listens
};

static struct victim start_victim(bool listens, uint16_t port, uint64_t seed) {
    struct victim victim = {0, 0};
    char port_text[16], seed_text[32];
    int ends[2];
    MUST(pipe(ends));
    snprintf(port_text, sizeof port_text, "%u", port);
    snprintf(seed_text, sizeof seed_text, "%llu", (unsigned long long)seed);
    victim.process = fork();
    if (victim.process == 0) {
        dup2(ends[1], 1);
        execl("/proc/self/exe", "semantics", "victim", listens ? "listen" : "connect", port_text,
              family() == AF_INET6 ? "6" : "4", seed_text, NULL);
        _exit(127);
    }
    close(ends[1]);
    if (listens && read(ends[0], &victim.port, sizeof victim.port) != sizeof victim.port)
        die("seed %llu: the victim says no port", (unsigned long long)seed);
    close(ends[0]);
    return victim;
}

struct outcome {
    int sender, receiver; // errors; 0 is the end of the stream
    struct stream *out;
};

static void *send_until_dead(void *argument) {
    struct outcome *outcome = argument;
    for (;;) {
        ssize_t sent = send_some(outcome->out, false);
        if (sent >= 0) {
            outcome->out->at += sent;
        } else if (errno == EAGAIN) {
            await(outcome->out->socket, POLLOUT);
        } else {
            outcome->sender = errno;
            return NULL;
        }
    }
}

static void wait_for_input(int s, uint32_t way) {
    struct epoll_event event = {.events = EPOLLIN | (way == 2 ? EPOLLET : 0)};
    if (way == 0)
        return;
    if (way == 3) {
        await(s, POLLIN);
        return;
    }
    int epoll = MUST(epoll_create1(EPOLL_CLOEXEC));
    MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, s, &event));
    if (epoll_wait(epoll, &event, 1, 10000) != 1)
        die("no event from a connection whose peer is dead");
    MUST(close(epoll));
}

static void receive_until_dead(struct stream *in, struct outcome *outcome, uint32_t way) {
    for (;;) {
        wait_for_input(in->socket, way);
        ssize_t got = receive_some(in);
        if (got > 0) {
            in->at += got;
        } else if (got == 0 || errno != EAGAIN) {
            outcome->receiver = got == 0 ? 0 : errno;
            return;
        }
    }
}

struct killer {
    pid_t victim;
    long after_us;
};

// In how many rounds there was memory in common when the victim died.
static int moved_rounds;

static void *kill_later(void *argument) {
    const struct killer *killer = argument;
    struct timespec life = {0, killer->after_us * 1000};
    nanosleep(&life, NULL);
    moved_rounds += arenas() > 0;
    kill(killer->victim, SIGKILL);
    return NULL;
}

static int connection_with(struct draws *draws, uint64_t seed, struct victim *victim) {
    if (draw(draws, 2)) {
        *victim = start_victim(true, 0, seed);
        return connect_to(victim->port);
    }
    int listener = new_listener(1);
    *victim = start_victim(false, port_of(listener), seed);
    int s = MUST(accept(listener, NULL, NULL));
    MUST(close(listener));
    return s;
}

static void kill_one(uint64_t seed) {
    struct draws draws = {seed, 0};
    struct victim victim;
    int s = connection_with(&draws, seed, &victim);
    uint32_t way = draw(&draws, 4);
    struct killer killer = {victim.process, draw(&draws, longest_lives_us[seed % 4])};
    struct stream out = endless(s, seed, false, seed + 3), in = endless(s, seed, true, seed + 4);
    struct outcome outcome = {.out = &out};
    pthread_t sender, killing;
    pthread_create(&sender, NULL, send_until_dead, &outcome);
    pthread_create(&killing, NULL, kill_later, &killer);
    receive_until_dead(&in, &outcome, way);
    pthread_join(sender, NULL);
    pthread_join(killing, NULL);
    int status = 0;
    MUST(waitpid(victim.process, &status, 0));
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
        die("seed %llu: the victim ended with status %#x", (unsigned long long)seed, status);
    // The end of the stream or a reset for who reads; a reset or what comes after it for who writes.
    if (outcome.receiver != 0 && outcome.receiver != ECONNRESET)
        die("seed %llu: the reader saw %s", (unsigned long long)seed, error_name(outcome.receiver));
    if (outcome.sender != EPIPE && outcome.sender != ECONNRESET)
        die("seed %llu: the writer saw %s", (unsigned long long)seed, error_name(outcome.sender));
    char byte;
    ssize_t after = recv(s, &byte, 1, MSG_DONTWAIT);
    if (after != 0 && !(after < 0 && errno == ECONNRESET))
        die("seed %llu: after the end: %zd %s", (unsigned long long)seed, after, error_name(errno));
    MUST(close(s));
}

// --- nothing remains

static int descriptors(void) {
    int count = 0;
    DIR *directory = opendir("/proc/self/fd");
    while (directory && readdir(directory))
        count++;
    if (directory)
        closedir(directory);
    return count;
}

static int mappings(void) {
    int count = 0, character;
    FILE *maps = fopen("/proc/self/maps", "re");
    while (maps && (character = getc(maps)) != EOF)
        count += character == '\n';
    if (maps)
        fclose(maps);
    return count;
}

void kill_rounds(int unused) {
    (void)unused;
    enum { FIRST = 5, SPARE = 8 };
    const char *text = getenv("SEMANTICS_ROUNDS");
    int rounds = text ? atoi(text) : 25, first_descriptors = 0, first_mappings = 0;
    signal(SIGPIPE, SIG_IGN);
    for (int round = 0; round < rounds; round++) {
        kill_one(stress_seed() * 1000000 + round);
        if (round == FIRST) {
            first_descriptors = descriptors();
            first_mappings = mappings();
        }
    }
    // What is cleared away later than at once is so within seconds.
    bool grew = true;
    for (int i = 0; i < 50 && grew; i++) {
        grew = descriptors() > first_descriptors + SPARE || mappings() > first_mappings + SPARE;
        if (grew)
            nap_ms(100);
    }
    if (grew)
        die("%d descriptors and %d mappings after round %d, %d and %d after the last", first_descriptors,
            first_mappings, FIRST, descriptors(), mappings());
    remark("arenas: %d", moved_rounds);
    say("every outcome was allowed, and nothing remains");
}
