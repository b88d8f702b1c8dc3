// What the two kinds of stress share.
#pragma once

#include "semantics.h"

// Numbers by seed: the same with the same seed, wherever they are drawn.
struct draws {
    uint64_t seed;
    uint64_t count;
};

uint32_t draw(struct draws *draws, uint32_t below);
uint64_t stress_seed(void);

// One direction of a connection, as one end has it.
struct stream {
    int socket;
    uint64_t seed; // of its bytes
    size_t at, total;
    bool ended;
    struct draws draws; // of what is done with it
};

struct connection {
    int way; // below 4: a thread a direction; else one thread that waits for events in one of four ways
    struct stream out, in;
    int arenas; // before it was closed
};

// Sends some of what is left, by any call; how much, or -1.
ssize_t send_some(struct stream *stream, bool may_wait);
// Receives some by any call and checks it; ends the process if it is wrong.
ssize_t receive_some(struct stream *stream);

void kill_rounds(int unused);
// The process that is going to be killed.
void be_victim(int count, char **arguments) __attribute__((noreturn));
