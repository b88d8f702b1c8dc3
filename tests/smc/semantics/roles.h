// How the runner tells a process what it is to play.
#pragma once

#include <stdbool.h>
#include <stdint.h>

// Numbers far above those that a scenario opens or closes.
enum {
    TRANSCRIPT_FD = 900, // append only, shared with whatever the process forks
    MEET_READ_FD = 901,
    MEET_WRITE_FD = 902,
    PORT_FD = 903, // the end that listens writes its port there
    TRACE_FD = 904,
    FIRST_CONTROL_FD = TRANSCRIPT_FD,
};

struct role {
    bool is_near;
    bool accepts; // else it connects
    bool trace;
    int family;
    int warm;
    uint16_t port;
};

extern struct role role;

struct scenario;
// Plays the role and never returns.
void play(const struct scenario *scenario) __attribute__((noreturn));
