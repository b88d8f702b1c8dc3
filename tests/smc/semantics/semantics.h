// What the scenarios share. A scenario is two functions, `near` and `far`, that run in processes of their own with one
// TCP connection between them and write a transcript of what they see. Whatever is below the socket calls, the
// transcript must come out the same: nothing in it may depend on time, ports, process numbers or the size of buffers.
#pragma once

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum start {
    CONNECTED, // both get a connection over which the warm-up has already gone
    LISTENING, // `far` gets a listening socket, `near` nothing: see connect_to_far()
    ALONE,     // only `near` runs
};

struct scenario {
    const char *name;
    enum start start;
    void (*near)(int socket);
    void (*far)(int socket);
};

// Each file of scenarios has one table, which ends with a scenario without a name.
#define TABLE(name) extern const struct scenario name##_scenarios[];
#include "tables.h"
#undef TABLE

// --- the transcript (transcript.c)

void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
// Says it and ends this process: the scenario cannot go on.
void die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
// A line that is shown but not compared.
void remark(const char *format, ...) __attribute__((format(printf, 1, 2)));
long show(const char *call, long result);
// Puts the call, its result and its error into the transcript; the value is that of the call.
#define SHOW(call) show(#call, (long)(call))
// The same for calls that must work for the scenario to mean anything and whose result says nothing.
#define MUST(call) must(#call, (long)(call))
long must(const char *call, long result);
const char *error_name(int error);
const char *signal_name(int signal);
// Names of poll's or epoll's events, in static memory of this thread.
const char *event_names(unsigned events);
// How many bytes, and their checksum.
void say_bytes(const char *what, const void *bytes, long length);
uint32_t checksum(uint32_t start, const void *bytes, size_t length);
#define CHECKSUM_START 2166136261u

// --- bytes that tell where in the stream they stand (transcript.c)

void pattern(void *bytes, size_t length, uint64_t offset, uint64_t seed);
// Index of the first byte that is not the pattern's; `length` if all are.
size_t pattern_holds(const void *bytes, size_t length, uint64_t offset, uint64_t seed);

// --- the other process (peer.c)

// Waits until the other end has come to its matching call. Goes over pipes, never over the connection.
void meet(void);
// The same, and each gets the other's value.
long trade(long mine);
// Waits until that thread sleeps in the kernel and stays there.
void wait_until_asleep(pid_t process, pid_t thread);
bool is_near(void);
int family(void);
int warm_rounds(void);

// --- sockets (peer.c)

int new_socket(int flags);
int new_listener(int backlog);
uint16_t port_of(int socket);
socklen_t address_of_port(struct sockaddr_storage *address, uint16_t port);
// A connection to a port of this host, without Nagle's algorithm.
int connect_to(uint16_t port);
uint16_t far_port(void);
int connect_to_far(void);

void send_all(int socket, const void *bytes, size_t length);
// Ends the process if the stream ends first.
void receive_exactly(int socket, void *bytes, size_t length);
// Sends zeros until the socket takes no more; how many. It must not be non-blocking otherwise.
size_t fill_up(int socket);
// `rounds` messages of several sizes to and fro, every byte checked; the end with `first` begins.
void rounds(int socket, bool first, int rounds);
// `count` messages of several sizes to a peer that sends back what it gets, every byte checked.
void echo(int socket, int count);
// Rounds enough for a connection that is to be moved to have been moved.
void warm(int socket, bool first);
// How often this process shares memory with another for their connections: shown, never compared.
int arenas(void);
// A connection is moved beside its traffic, which takes a moment. What follows is to happen after that, if both ends
// can be moved at all.
void settle(int socket);
// Meets, then some more rounds, `near` first, and says that they went well.
void talk(int socket);
// Both ends of a connection in one process, by one thread.
void talk_to_self(int one, int other, int rounds);
int new_epoll(void);
// epoll_ctl with `events` and `data`.
int control(int epoll, int operation, int descriptor, uint32_t events, uint64_t data);
// Waits for one of the events; ends the process after some seconds without.
void await(int descriptor, short events);
// Waits until so many bytes can be read (FIONREAD).
void wait_bytes(int socket, int count);
void set_nonblocking(int descriptor, bool nonblocking);
void nap_ms(int milliseconds);
uint64_t now_ms(void);
