// Several threads on one connection, and several connections of several threads.
#include "semantics.h"

enum { MESSAGE = 64, MESSAGES = 3000, WRITERS = 2, READERS = 2 };

struct worker {
    int socket;
    int number;
    long count;
};

// A message says who wrote it and which it is, and the rest follows from that.
static void compose(unsigned char *message, uint32_t writer, uint32_t index) {
    memcpy(message, &writer, 4);
    memcpy(message + 4, &index, 4);
    pattern(message + 8, MESSAGE - 8, index, writer);
}

static bool is_whole(const unsigned char *message, uint32_t *writer, uint32_t *index) {
    memcpy(writer, message, 4);
    memcpy(index, message + 4, 4);
    return *writer < WRITERS && pattern_holds(message + 8, MESSAGE - 8, *index, *writer) == MESSAGE - 8;
}

static void *write_messages(void *argument) {
    struct worker *worker = argument;
    unsigned char message[MESSAGE];
    for (int i = 0; i < MESSAGES; i++) {
        compose(message, worker->number, i);
        ssize_t sent = i % 2 ? send(worker->socket, message, MESSAGE, 0) : write(worker->socket, message, MESSAGE);
        if (sent != MESSAGE)
            die("write: %zd %s", sent, error_name(errno));
    }
    return NULL;
}

static void start_writers(int s, pthread_t *threads, struct worker *workers) {
    for (int i = 0; i < WRITERS; i++) {
        workers[i] = (struct worker){s, i, 0};
        pthread_create(threads + i, NULL, write_messages, workers + i);
    }
}

// --- small writes of two threads are not torn, and each thread's come in order

static void writers_near(int s) {
    pthread_t threads[WRITERS];
    struct worker workers[WRITERS];
    start_writers(s, threads, workers);
    for (int i = 0; i < WRITERS; i++)
        pthread_join(threads[i], NULL);
    talk(s);
}

static void writers_far(int s) {
    unsigned char message[MESSAGE];
    uint32_t next[WRITERS] = {0}, writer, index;
    for (int i = 0; i < WRITERS * MESSAGES; i++) {
        receive_exactly(s, message, MESSAGE);
        if (!is_whole(message, &writer, &index))
            die("message %d is torn", i);
        if (index != next[writer]++)
            die("message %u of writer %u where %u should be", index, writer, next[writer] - 1);
    }
    say("%u and %u messages, whole and in order", next[0], next[1]);
    talk(s);
}

// --- each read of two threads gets whole messages

static void *read_messages(void *argument) {
    struct worker *worker = argument;
    unsigned char message[MESSAGE];
    uint32_t writer, index;
    for (;;) {
        ssize_t got = recv(worker->socket, message, MESSAGE, MSG_WAITALL);
        if (got == 0)
            return NULL;
        if (got != MESSAGE || !is_whole(message, &writer, &index))
            die("a message of %zd bytes is torn", got);
        worker->count++;
    }
}

static void readers_near(int s) {
    writers_near(s);
    pthread_t threads[WRITERS];
    struct worker workers[WRITERS];
    start_writers(s, threads, workers);
    for (int i = 0; i < WRITERS; i++)
        pthread_join(threads[i], NULL);
    SHOW(shutdown(s, SHUT_WR));
    meet();
}

static void readers_far(int s) {
    writers_far(s);
    pthread_t threads[READERS];
    struct worker workers[READERS];
    for (int i = 0; i < READERS; i++) {
        workers[i] = (struct worker){s, i, 0};
        pthread_create(threads + i, NULL, read_messages, workers + i);
    }
    long total = 0;
    for (int i = 0; i < READERS; i++) {
        pthread_join(threads[i], NULL);
        total += workers[i].count;
    }
    say("%ld messages by two readers", total);
    meet();
}

// --- one thread sleeps in read while another writes

static void *answer_reader(void *argument) {
    struct worker *worker = argument;
    char bytes[4];
    for (worker->count = 0; worker->count < 500; worker->count++)
        receive_exactly(worker->socket, bytes, 4);
    return NULL;
}

static void full_duplex(int s) {
    struct worker worker = {s, 0, 0};
    pthread_t thread;
    pthread_create(&thread, NULL, answer_reader, &worker);
    for (int i = 0; i < 500; i++) {
        send_all(s, "ping", 4);
        if (i % 50 == 0)
            nap_ms(1);
    }
    pthread_join(thread, NULL);
    say("received %ld", worker.count);
    talk(s);
}

// --- a connection for each thread

static void *own_connection(void *argument) {
    struct worker *worker = argument;
    rounds(worker->socket, worker->number, 400);
    worker->count++;
    return NULL;
}

enum { CONNECTIONS = 8 };

static void each_its_own(int *sockets, bool first) {
    pthread_t threads[CONNECTIONS];
    struct worker workers[CONNECTIONS];
    int good = 0;
    for (int i = 0; i < CONNECTIONS; i++) {
        workers[i] = (struct worker){sockets[i], first, 0};
        pthread_create(threads + i, NULL, own_connection, workers + i);
    }
    for (int i = 0; i < CONNECTIONS; i++) {
        pthread_join(threads[i], NULL);
        good += workers[i].count;
    }
    say("%d threads went through", good);
}

static void own_near(int unused) {
    (void)unused;
    int sockets[CONNECTIONS];
    for (int i = 0; i < CONNECTIONS; i++)
        sockets[i] = connect_to_far();
    each_its_own(sockets, true);
    meet();
}

static void own_far(int listener) {
    int sockets[CONNECTIONS];
    for (int i = 0; i < CONNECTIONS; i++)
        sockets[i] = MUST(accept(listener, NULL, NULL));
    each_its_own(sockets, false);
    meet();
}

// Both ends in one process, a thread each.
static void same_process(int unused) {
    (void)unused;
    int listener = new_listener(5), ends[2];
    ends[0] = connect_to(port_of(listener));
    ends[1] = MUST(accept(listener, NULL, NULL));
    struct worker workers[2] = {{ends[0], true, 0}, {ends[1], false, 0}};
    pthread_t thread;
    pthread_create(&thread, NULL, own_connection, workers);
    own_connection(workers + 1);
    pthread_join(thread, NULL);
    say("%ld and %ld", workers[0].count, workers[1].count);
    talk_to_self(ends[0], ends[1], 100);
}

// --- a thread is cancelled in the middle of its read

static void *read_forever(void *argument) {
    struct worker *worker = argument;
    char byte;
    worker->count = gettid();
    meet();
    for (;;)
        if (recv(worker->socket, &byte, 1, 0) != 1)
            die("recv: %s", error_name(errno));
}

static void cancel_near(int s) {
    struct worker worker = {s, 0, 0};
    pthread_t thread;
    void *result;
    pthread_create(&thread, NULL, read_forever, &worker);
    meet();
    while (!worker.count)
        nap_ms(1);
    wait_until_asleep(getpid(), worker.count);
    SHOW(pthread_cancel(thread));
    SHOW(pthread_join(thread, &result));
    say("cancelled: %d", result == PTHREAD_CANCELED);
    talk(s);
}

static void cancel_far(int s) {
    meet();
    send_all(s, "some of it", 10);
    meet();
    talk(s);
}

// --- one thread mostly waits for room, another one mostly for messages: both are woken through the same TCP connection

enum { SIP = 4000, SUPPLY = MESSAGES * SIP + (8 << 20) };

static void *supply(void *argument) {
    struct worker *worker = argument;
    char *bytes = malloc(SUPPLY);
    pattern(bytes, SUPPLY, 0, 1);
    send_all(worker->socket, bytes, SUPPLY);
    free(bytes);
    return NULL;
}

static void crowded_near(int s) {
    struct worker worker = {s, 0, 0};
    pthread_t thread;
    pthread_create(&thread, NULL, supply, &worker);
    for (int i = 0; i < MESSAGES; i++) {
        char message[10];
        receive_exactly(s, message, sizeof message);
        trade(i);
    }
    say("%d messages", MESSAGES);
    pthread_join(thread, NULL);
    meet();
}

static void crowded_far(int s) {
    char *bytes = malloc(SUPPLY);
    size_t total = 0;
    for (int i = 0; i < MESSAGES; i++, total += SIP) {
        receive_exactly(s, bytes + total, SIP);
        send_all(s, "a message.", 10);
        trade(i);
    }
    receive_exactly(s, bytes + total, SUPPLY - total);
    say("the supply holds: %d", pattern_holds(bytes, SUPPLY, 0, 1) == SUPPLY);
    free(bytes);
    meet();
}

const struct scenario thread_scenarios[] = {
    {"two-writers", CONNECTED, writers_near, writers_far},
    {"two-readers", CONNECTED, readers_near, readers_far},
    {"reader-and-writer", CONNECTED, full_duplex, full_duplex},
    {"reader-beside-blocked-writer", CONNECTED, crowded_near, crowded_far},
    {"thread-each", LISTENING, own_near, own_far},
    {"thread-each-same-process", ALONE, same_process, NULL},
    {"cancelled-reader", CONNECTED, cancel_near, cancel_far},
    {NULL},
};
