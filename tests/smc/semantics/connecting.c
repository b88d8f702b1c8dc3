// From socket() to the first bytes: listening, connecting with and without waiting, accepting.
#include "semantics.h"

static int socket_error(int s) {
    int error = -1;
    MUST(getsockopt(s, SOL_SOCKET, SO_ERROR, &error, &(socklen_t){sizeof error}));
    return error;
}

static void say_poll(const char *when, int s, int timeout) {
    struct pollfd entry = {.fd = s, .events = POLLIN | POLLOUT};
    int ready = poll(&entry, 1, timeout);
    say("%s: %d %s", when, ready, event_names(entry.revents));
}

// A port on which nobody listens, with a socket that keeps others from it.
static uint16_t refusing_port(void) {
    struct sockaddr_storage address;
    int holder = new_socket(0);
    MUST(bind(holder, (struct sockaddr *)&address, address_of_port(&address, 0)));
    return port_of(holder);
}

// --- not connected, refused, connected

static void states(int unused) {
    (void)unused;
    char byte;
    struct sockaddr_storage address;
    int s = new_socket(0);
    signal(SIGPIPE, SIG_IGN);
    say_poll("fresh", s, 0);
    SHOW(read(s, &byte, 1));
    SHOW(write(s, "x", 1));
    SHOW(send(s, "x", 1, MSG_NOSIGNAL));
    SHOW(recv(s, &byte, 1, MSG_DONTWAIT));
    SHOW(getpeername(s, (struct sockaddr *)&address, &(socklen_t){sizeof address}));
    SHOW(accept(s, NULL, NULL));
    SHOW(shutdown(s, SHUT_WR));
    socklen_t length = address_of_port(&address, refusing_port());
    SHOW(connect(s, (struct sockaddr *)&address, length));
    say_poll("refused", s, 0);
    SHOW(write(s, "x", 1));
    say("error %s", error_name(socket_error(s)));
    SHOW(close(s));
    s = new_socket(SOCK_NONBLOCK);
    int result = connect(s, (struct sockaddr *)&address, length);
    say("refused at once or later: %d", result < 0 && (errno == EINPROGRESS || errno == ECONNREFUSED));
    say_poll("refused", s, 5000);
    say("error %s", error_name(socket_error(s)));
    say("error %s", error_name(socket_error(s)));
    // The socket can be used again.
    int listener = new_listener(5);
    length = address_of_port(&address, port_of(listener));
    set_nonblocking(s, false);
    // The first call only ends the attempt that failed.
    SHOW(connect(s, (struct sockaddr *)&address, length));
    SHOW(connect(s, (struct sockaddr *)&address, length));
    int accepted = MUST(accept(listener, NULL, NULL));
    talk_to_self(s, accepted, warm_rounds());
    SHOW(connect(s, (struct sockaddr *)&address, length));
    SHOW(close(accepted));
    SHOW(read(s, &byte, 1));
}

// --- connecting without waiting

static void nonblocking_near(int unused) {
    (void)unused;
    struct sockaddr_storage address;
    socklen_t length = address_of_port(&address, far_port());
    int s = new_socket(SOCK_NONBLOCK | SOCK_CLOEXEC);
    int result = connect(s, (struct sockaddr *)&address, length);
    say("under way or done: %d", result == 0 || errno == EINPROGRESS);
    say_poll("connected", s, 5000);
    say("error %d", socket_error(s));
    // Asked again, a connection that stands says that it does.
    result = connect(s, (struct sockaddr *)&address, length);
    say("again: %d", result == 0 || errno == EISCONN);
    SHOW(connect(s, (struct sockaddr *)&address, length));
    say("non-blocking %d, close-on-exec %d", !!(fcntl(s, F_GETFL) & O_NONBLOCK), fcntl(s, F_GETFD));
    rounds(s, true, 40);
    set_nonblocking(s, false);
    rounds(s, true, 40);
    talk(s);
}

static void accept_and_talk(int listener) {
    int s = MUST(accept(listener, NULL, NULL));
    rounds(s, false, 40);
    rounds(s, false, 40);
    talk(s);
}

// A name of its own before it connects.
static void bound_near(int unused) {
    (void)unused;
    struct sockaddr_storage own, far;
    int s = new_socket(0);
    MUST(setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)));
    MUST(bind(s, (struct sockaddr *)&own, address_of_port(&own, 0)));
    uint16_t port = port_of(s);
    say("has a port: %d", port != 0);
    SHOW(connect(s, (struct sockaddr *)&far, address_of_port(&far, far_port())));
    say("keeps it: %d", port_of(s) == port);
    rounds(s, true, 40);
    rounds(s, true, 40);
    talk(s);
}

// --- accepting

static void flags_near(int unused) {
    (void)unused;
    for (int i = 0; i < 5; i++) {
        int s = connect_to_far();
        warm(s, true);
        meet();
        MUST(close(s));
    }
}

static void say_flags(const char *what, int s) {
    say("%s: non-blocking %d, close-on-exec %d", what, !!(fcntl(s, F_GETFL) & O_NONBLOCK), fcntl(s, F_GETFD));
}

static void serve(const char *what, int s) {
    say_flags(what, s);
    set_nonblocking(s, false);
    warm(s, false);
    meet();
    char byte;
    SHOW(read(s, &byte, 1));
    SHOW(close(s));
}

static void flags_far(int listener) {
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    serve("accept", MUST(accept(listener, (struct sockaddr *)&address, &length)));
    say("family %d", address.ss_family == family());
    serve("accept4, no flags", MUST(accept4(listener, NULL, NULL, 0)));
    serve("accept4, both flags", MUST(accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)));
    SHOW(accept4(listener, NULL, NULL, 0x10000000));
    // Flags of the listener are not inherited.
    set_nonblocking(listener, true);
    MUST(fcntl(listener, F_SETFD, FD_CLOEXEC));
    await(listener, POLLIN);
    serve("accept from a non-blocking listener", MUST(accept(listener, NULL, NULL)));
    await(listener, POLLIN);
    serve("accept4, not waiting", MUST(accept4(listener, NULL, NULL, SOCK_NONBLOCK)));
    SHOW(accept(listener, NULL, NULL));
    SHOW(accept(0, NULL, NULL));
}

// What the listener was told beforehand holds for what it accepts.
static void inherited_near(int unused) {
    (void)unused;
    int s = connect_to_far();
    rounds(s, true, 80);
    talk(s);
}

static int option(int s, int level, int name) {
    int value = -1;
    MUST(getsockopt(s, level, name, &value, &(socklen_t){sizeof value}));
    return value;
}

static void inherited_far(int listener) {
    MUST(setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)));
    MUST(setsockopt(listener, SOL_SOCKET, SO_KEEPALIVE, &(int){1}, sizeof(int)));
    MUST(setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){17, 0}, sizeof(struct timeval)));
    say("accepts: %d", option(listener, SOL_SOCKET, SO_ACCEPTCONN));
    int s = MUST(accept(listener, NULL, NULL));
    // The connection may have been made before the options were set: what the second gets is certain.
    say("accepts: %d", option(s, SOL_SOCKET, SO_ACCEPTCONN));
    rounds(s, false, 80);
    talk(s);
    int client = connect_to(port_of(listener)), accepted = MUST(accept(listener, NULL, NULL));
    struct timeval limit;
    MUST(getsockopt(accepted, SOL_SOCKET, SO_RCVTIMEO, &limit, &(socklen_t){sizeof limit}));
    say("no delay %d, keep alive %d, limit %ld", option(accepted, IPPROTO_TCP, TCP_NODELAY),
        option(accepted, SOL_SOCKET, SO_KEEPALIVE), (long)limit.tv_sec);
    say("of the one that connected: keep alive %d", option(client, SOL_SOCKET, SO_KEEPALIVE));
}

// Data and the end of the stream, all before accept.
static void early_near(int unused) {
    (void)unused;
    int s = connect_to_far();
    SHOW(write(s, "early", 5));
    SHOW(shutdown(s, SHUT_WR));
    int gone = connect_to_far();
    SHOW(write(gone, "bird", 4));
    SHOW(close(gone));
    meet();
    char bytes[16];
    receive_exactly(s, bytes, 5);
    SHOW(read(s, bytes, 16));
    meet();
}

static void early_far(int listener) {
    meet();
    char bytes[16];
    int s = MUST(accept(listener, NULL, NULL)), gone = MUST(accept(listener, NULL, NULL));
    say_bytes("first", bytes, read(s, bytes, 16));
    SHOW(read(s, bytes, 16));
    SHOW(write(s, "reply", 5));
    SHOW(close(s));
    say_bytes("second", bytes, read(gone, bytes, 16));
    SHOW(read(gone, bytes, 16));
    meet();
}

// --- both ends in one process, with one thread

static void self(int unused) {
    (void)unused;
    int listener = new_listener(5);
    int one = connect_to(port_of(listener)), other = MUST(accept(listener, NULL, NULL));
    talk_to_self(one, other, warm_rounds() + 200);
    char bytes[5000];
    pattern(bytes, sizeof bytes, 0, 1);
    SHOW(write(one, bytes, 5000));
    SHOW(write(other, bytes, 3000));
    wait_bytes(other, 5000);
    SHOW(read(other, bytes, 5000));
    SHOW(recv(one, bytes, 3000, MSG_WAITALL));
    say_poll("other", other, 0);
    SHOW(close(one));
    say_poll("other", other, 5000);
    SHOW(read(other, bytes, 1));
    SHOW(close(other));
}

// A socket that connects to itself.
static void to_itself(int unused) {
    (void)unused;
    struct sockaddr_storage address;
    int s = new_socket(0);
    MUST(setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)));
    MUST(bind(s, (struct sockaddr *)&address, address_of_port(&address, 0)));
    SHOW(connect(s, (struct sockaddr *)&address, address_of_port(&address, port_of(s))));
    for (int i = 0; i < 100; i++) {
        char bytes[16];
        if (write(s, "hello", 5) != 5)
            die("write %d: %s", i, error_name(errno));
        receive_exactly(s, bytes, 5);
    }
    SHOW(shutdown(s, SHUT_WR));
    char byte;
    SHOW(read(s, &byte, 1));
}

// A short life: nothing is gained by moving such a connection.
static void short_near(int unused) {
    (void)unused;
    for (int i = 0; i < 100; i++) {
        int s = connect_to_far();
        rounds(s, true, 1);
        MUST(close(s));
    }
    meet();
}

static void short_far(int listener) {
    char byte;
    for (int i = 0; i < 100; i++) {
        int s = MUST(accept(listener, NULL, NULL));
        rounds(s, false, 1);
        if (read(s, &byte, 1) != 0)
            die("connection %d does not end", i);
        MUST(close(s));
    }
    say("100 connections");
    meet();
}

// Who closes first keeps the port busy for a while, and here that is the client: a server may have its port again at once.
enum { CLIENTS = 20 };

static void leaving_near(int unused) {
    (void)unused;
    for (int i = 0; i < CLIENTS; i++) {
        int s = connect_to_far();
        warm(s, true);
        MUST(close(s));
    }
    meet();
}

static void leaving_far(int listener) {
    struct sockaddr_storage address;
    uint16_t port = port_of(listener);
    char byte;
    for (int i = 0; i < CLIENTS; i++) {
        int s = MUST(accept(listener, NULL, NULL));
        warm(s, false);
        if (read(s, &byte, 1) != 0)
            die("connection %d does not end", i);
        MUST(close(s));
    }
    SHOW(close(listener));
    meet();
    int again = new_socket(0);
    SHOW(bind(again, (struct sockaddr *)&address, address_of_port(&address, port)));
}

const struct scenario connecting_scenarios[] = {
    {"states", ALONE, states, NULL},
    {"connect-nonblocking", LISTENING, nonblocking_near, accept_and_talk},
    {"connect-bound", LISTENING, bound_near, accept_and_talk},
    {"accept-flags", LISTENING, flags_near, flags_far},
    {"accept-inherits", LISTENING, inherited_near, inherited_far},
    {"data-before-accept", LISTENING, early_near, early_far},
    {"with-itself", ALONE, self, NULL},
    {"socket-to-itself", ALONE, to_itself, NULL},
    {"short-connections", LISTENING, short_near, short_far},
    {"port-free-again", LISTENING, leaving_near, leaving_far},
    {NULL},
};
