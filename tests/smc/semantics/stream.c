// The stream itself: every byte arrives once and in order, whatever the sizes of the writes and reads.
#include "semantics.h"

enum { MAXIMUM = 1 << 20 };

static unsigned char *buffer(size_t length) {
    unsigned char *bytes = malloc(length);
    if (!bytes)
        die("no memory");
    return bytes;
}

// Sizes around powers of two up to 1 MiB.
static int echo_sizes(size_t *sizes) {
    int count = 0;
    for (size_t power = 1; power <= MAXIMUM; power *= 4)
        for (int delta = -1; delta <= 1; delta++)
            if (power + delta >= 1 && power + delta <= MAXIMUM)
                sizes[count++] = power + delta;
    return count;
}

static void echo_near(int s) {
    size_t sizes[64];
    int count = echo_sizes(sizes);
    unsigned char *bytes = buffer(MAXIMUM);
    for (int i = 0; i < count; i++) {
        pattern(bytes, sizes[i], 0, i);
        send_all(s, bytes, sizes[i]);
        memset(bytes, 0, sizes[i]);
        receive_exactly(s, bytes, sizes[i]);
        say_bytes(pattern_holds(bytes, sizes[i], 0, i) == sizes[i] ? "echo" : "WRONG echo", bytes, sizes[i]);
    }
}

static void echo_far(int s) {
    size_t sizes[64];
    int count = echo_sizes(sizes);
    unsigned char *bytes = buffer(MAXIMUM);
    for (int i = 0; i < count; i++) {
        receive_exactly(s, bytes, sizes[i]);
        send_all(s, bytes, sizes[i]);
    }
    SHOW(read(s, bytes, 1));
}

// --- both ways at once

struct direction {
    int socket;
    size_t total;
    uint64_t seed;
};

static void *send_direction(void *argument) {
    struct direction *direction = argument;
    unsigned char bytes[7001];
    for (size_t at = 0; at < direction->total;) {
        size_t size = 1 + (at * 31 + 7) % sizeof bytes;
        if (size > direction->total - at)
            size = direction->total - at;
        pattern(bytes, size, at, direction->seed);
        send_all(direction->socket, bytes, size);
        at += size;
    }
    return NULL;
}

static void receive_direction(struct direction *direction) {
    unsigned char bytes[9000];
    uint32_t sum = CHECKSUM_START;
    size_t at = 0;
    while (at < direction->total) {
        ssize_t got = read(direction->socket, bytes, sizeof bytes);
        if (got <= 0)
            die("read after %zu bytes: %zd %s", at, got, error_name(errno));
        if (pattern_holds(bytes, got, at, direction->seed) != (size_t)got)
            die("wrong bytes after %zu", at);
        sum = checksum(sum, bytes, got);
        at += got;
    }
    say("received %zu bytes, %08x", at, sum);
}

static void both_ways(int s) {
    struct direction out = {s, 8 << 20, is_near() ? 1 : 2}, in = {s, 8 << 20, is_near() ? 2 : 1};
    pthread_t sender;
    pthread_create(&sender, NULL, send_direction, &out);
    receive_direction(&in);
    pthread_join(sender, NULL);
    talk(s);
}

// --- byte by byte

static void bytes_near(int s) {
    for (int i = 0; i < 3000; i++) {
        unsigned char byte;
        pattern(&byte, 1, i, 5);
        if (write(s, &byte, 1) != 1)
            die("write %d: %s", i, error_name(errno));
    }
    talk(s);
}

static void bytes_far(int s) {
    unsigned char bytes[3000];
    for (int i = 0; i < 3000; i++)
        if (read(s, bytes + i, 1) != 1)
            die("read %d: %s", i, error_name(errno));
    say_bytes("byte by byte", bytes, sizeof bytes);
    say("good: %zu", pattern_holds(bytes, sizeof bytes, 0, 5));
    talk(s);
}

// Written in one go, read byte by byte, and the other way round.
static void split_near(int s) {
    unsigned char bytes[4096];
    pattern(bytes, sizeof bytes, 0, 6);
    SHOW(write(s, bytes, sizeof bytes));
    for (size_t i = 0; i < sizeof bytes; i++)
        send_all(s, bytes + i, 1);
    talk(s);
}

static void split_far(int s) {
    unsigned char bytes[4096];
    for (size_t i = 0; i < sizeof bytes; i++)
        receive_exactly(s, bytes + i, 1);
    say_bytes("one write", bytes, sizeof bytes);
    wait_bytes(s, sizeof bytes);
    SHOW(read(s, bytes, sizeof bytes));
    say_bytes("many writes", bytes, sizeof bytes);
    talk(s);
}

// --- a writer that is faster than the reader

enum { LARGE = 24 << 20 };

static void slow_reader_near(int s) {
    unsigned char *bytes = buffer(LARGE);
    pattern(bytes, LARGE, 0, 9);
    // One blocking call returns when all is handed over, not before.
    SHOW(write(s, bytes, LARGE));
    SHOW(send(s, bytes, LARGE / 2, 0));
    talk(s);
}

static void slow_reader_far(int s) {
    unsigned char bytes[50000];
    uint32_t sum = CHECKSUM_START;
    size_t at = 0, total = LARGE + LARGE / 2;
    nap_ms(30);
    while (at < total) {
        size_t want = total - at < sizeof bytes ? total - at : sizeof bytes;
        ssize_t got = read(s, bytes, want);
        if (got <= 0)
            die("read after %zu: %zd %s", at, got, error_name(errno));
        // Where the second write begins the pattern does so again.
        size_t first = at < LARGE && at + got > LARGE ? LARGE - at : (size_t)got;
        if (pattern_holds(bytes, first, at % LARGE, 9) != first ||
            pattern_holds(bytes + first, got - first, 0, 9) != got - first)
            die("wrong bytes after %zu", at);
        sum = checksum(sum, bytes, got);
        at += got;
        if (at / got % 64 == 0)
            nap_ms(1);
    }
    say("received %zu bytes, %08x", at, sum);
    talk(s);
}

// --- a writer that must not block

static void full_near(int s) {
    unsigned char bytes[65536];
    size_t at = 0, refusals = 0;
    set_nonblocking(s, true);
    for (;;) {
        pattern(bytes, sizeof bytes, at, 11);
        ssize_t sent = write(s, bytes, sizeof bytes);
        if (sent < 0)
            break;
        at += sent;
        if (at > 256 << 20)
            die("the stream takes everything");
    }
    say("full: %s, after at least 64 KiB: %d", error_name(errno), at >= 65536);
    meet();
    size_t total = at + (16 << 20);
    while (at < total) {
        size_t want = total - at < sizeof bytes ? total - at : sizeof bytes;
        pattern(bytes, want, at, 11);
        ssize_t sent = write(s, bytes, want);
        if (sent < 0 && errno == EAGAIN) {
            refusals++;
            await(s, POLLOUT);
        } else if (sent <= 0) {
            die("write: %zd %s", sent, error_name(errno));
        } else {
            at += sent;
        }
    }
    say("was refused again: %d", refusals > 0);
    set_nonblocking(s, false);
    trade(total);
    talk(s);
}

// Reads what there is without knowing how much is to come.
static void full_far(int s) {
    unsigned char bytes[30000];
    size_t at = 0;
    meet();
    nap_ms(20);
    set_nonblocking(s, true);
    for (int idle = 0; idle < 2;) {
        ssize_t got = read(s, bytes, sizeof bytes);
        if (got < 0 && errno == EAGAIN) {
            struct pollfd entry = {.fd = s, .events = POLLIN};
            idle = poll(&entry, 1, 200) == 1 ? 0 : idle + 1;
        } else if (got <= 0) {
            die("read: %zd %s", got, error_name(errno));
        } else if (pattern_holds(bytes, got, at, 11) != (size_t)got) {
            die("wrong bytes after %zu", at);
        } else {
            at += got;
        }
    }
    say("all arrived: %d", trade(0) == (long)at);
    set_nonblocking(s, false);
    talk(s);
}

// An empty socket that must not block: reads refuse, and a byte ends that.
static void empty_near(int s) {
    char byte;
    set_nonblocking(s, true);
    SHOW(read(s, &byte, 1));
    SHOW(recv(s, &byte, 1, 0));
    SHOW(recv(s, &byte, 1, MSG_PEEK));
    meet();
    await(s, POLLIN);
    SHOW(read(s, &byte, 1));
    SHOW(read(s, &byte, 1));
    set_nonblocking(s, false);
    talk(s);
}

static void empty_far(int s) {
    meet();
    nap_ms(5);
    SHOW(write(s, "x", 1));
    talk(s);
}

// Requests that are sent before the reply to the last one has come.
static void pipelined_near(int s) {
    unsigned char bytes[200];
    for (int batch = 0; batch < 100; batch++) {
        for (int i = 0; i < 16; i++) {
            pattern(bytes, 100 + i, batch, i);
            send_all(s, bytes, 100 + i);
        }
        for (int i = 0; i < 16; i++) {
            receive_exactly(s, bytes, 100 + i);
            if (pattern_holds(bytes, 100 + i, batch, i) != 100u + i)
                die("batch %d, reply %d is wrong", batch, i);
        }
    }
    say("100 batches");
    talk(s);
}

static void pipelined_far(int s) {
    unsigned char bytes[200];
    for (int i = 0; i < 1600; i++) {
        receive_exactly(s, bytes, 100 + i % 16);
        send_all(s, bytes, 100 + i % 16);
    }
    talk(s);
}

const struct scenario stream_scenarios[] = {
    {"echo-sizes", CONNECTED, echo_near, echo_far},
    {"both-ways-at-once", CONNECTED, both_ways, both_ways},
    {"byte-by-byte", CONNECTED, bytes_near, bytes_far},
    {"split-and-joined", CONNECTED, split_near, split_far},
    {"slow-reader", CONNECTED, slow_reader_near, slow_reader_far},
    {"full-nonblocking", CONNECTED, full_near, full_far},
    {"empty-nonblocking", CONNECTED, empty_near, empty_far},
    {"pipelined", CONNECTED, pipelined_near, pipelined_far},
    {NULL},
};
