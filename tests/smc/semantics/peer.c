// The other process, and the connection with it.
#include "semantics.h"

#include "roles.h"
#include <arpa/inet.h>

struct role role;

enum { WAIT_SECONDS = 10 };

bool is_near(void) { return role.is_near; }
int family(void) { return role.family; }
int warm_rounds(void) { return role.warm; }

// --- meeting

long trade(long mine) {
    long others;
    if (write(MEET_WRITE_FD, &mine, sizeof mine) != sizeof mine)
        die("the other end is gone (%s)", error_name(errno));
    ssize_t got;
    do
        got = read(MEET_READ_FD, &others, sizeof others);
    while (got < 0 && errno == EINTR);
    if (got != sizeof others)
        die("the other end is gone");
    return others;
}

void meet(void) { trade(0); }

static char thread_state(pid_t process, pid_t thread) {
    char path[64], text[256];
    snprintf(path, sizeof path, "/proc/%d/task/%d/stat", process, thread);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        die("%s: %s", path, error_name(errno));
    ssize_t got = read(file, text, sizeof text - 1);
    close(file);
    text[got > 0 ? got : 0] = 0;
    const char *after_name = strrchr(text, ')');
    return after_name && after_name[1] ? after_name[2] : '?';
}

void wait_until_asleep(pid_t process, pid_t thread) {
    int asleep = 0;
    for (int i = 0; i < WAIT_SECONDS * 1000 && asleep < 10; i++) {
        asleep = thread_state(process, thread) == 'S' ? asleep + 1 : 0;
        nap_ms(1);
    }
    if (asleep < 10)
        die("the other thread does not go to sleep");
}

// --- sockets

int new_socket(int flags) { return MUST(socket(role.family, SOCK_STREAM | flags, 0)); }

socklen_t address_of_port(struct sockaddr_storage *address, uint16_t port) {
    memset(address, 0, sizeof *address);
    if (role.family == AF_INET6) {
        struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)address;
        in6->sin6_family = AF_INET6;
        in6->sin6_addr = in6addr_loopback;
        in6->sin6_port = htons(port);
        return sizeof *in6;
    }
    struct sockaddr_in *in = (struct sockaddr_in *)address;
    in->sin_family = AF_INET;
    in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    in->sin_port = htons(port);
    return sizeof *in;
}

uint16_t port_of(int socket) {
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    MUST(getsockname(socket, (struct sockaddr *)&address, &length));
    if (address.ss_family == AF_INET6)
        return ntohs(((struct sockaddr_in6 *)&address)->sin6_port);
    return ntohs(((struct sockaddr_in *)&address)->sin_port);
}

int new_listener(int backlog) {
    struct sockaddr_storage address;
    int listener = new_socket(0);
    MUST(bind(listener, (struct sockaddr *)&address, address_of_port(&address, 0)));
    MUST(listen(listener, backlog));
    return listener;
}

int connect_to(uint16_t port) {
    struct sockaddr_storage address;
    int socket = new_socket(0);
    MUST(setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)));
    MUST(connect(socket, (struct sockaddr *)&address, address_of_port(&address, port)));
    return socket;
}

uint16_t far_port(void) { return role.port; }

int connect_to_far(void) { return connect_to(role.port); }

void set_nonblocking(int descriptor, bool nonblocking) {
    int flags = MUST(fcntl(descriptor, F_GETFL));
    MUST(fcntl(descriptor, F_SETFL, nonblocking ? flags | O_NONBLOCK : flags & ~O_NONBLOCK));
}

int new_epoll(void) { return MUST(epoll_create1(EPOLL_CLOEXEC)); }

int control(int epoll, int operation, int descriptor, uint32_t events, uint64_t data) {
    struct epoll_event event = {.events = events, .data.u64 = data};
    return epoll_ctl(epoll, operation, descriptor, &event);
}

void await(int descriptor, short events) {
    struct pollfd entry = {.fd = descriptor, .events = events};
    int ready;
    do
        ready = poll(&entry, 1, WAIT_SECONDS * 1000);
    while (ready < 0 && errno == EINTR);
    if (ready != 1)
        die("waited in vain for %s", event_names(events));
}

void wait_bytes(int s, int count) {
    int available = 0;
    uint64_t deadline = now_ms() + WAIT_SECONDS * 1000;
    while (MUST(ioctl(s, FIONREAD, &available)) == 0 && available < count) {
        if (now_ms() > deadline)
            die("%d bytes of %d came", available, count);
        nap_ms(1);
    }
}

void nap_ms(int milliseconds) {
    struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000L};
    while (nanosleep(&time, &time) < 0 && errno == EINTR)
        continue;
}

uint64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000ull + now.tv_nsec / 1000000;
}

// --- bytes

void send_all(int socket, const void *bytes, size_t length) {
    for (size_t sent = 0; sent < length;) {
        ssize_t written = write(socket, (const char *)bytes + sent, length - sent);
        if (written < 0 && errno == EAGAIN)
            await(socket, POLLOUT);
        else if (written < 0 && errno != EINTR)
            die("write at byte %zu of %zu: %s", sent, length, error_name(errno));
        else if (written > 0)
            sent += written;
    }
}

void receive_exactly(int socket, void *bytes, size_t length) {
    for (size_t received = 0; received < length;) {
        ssize_t got = read(socket, (char *)bytes + received, length - received);
        if (got < 0 && errno == EAGAIN)
            await(socket, POLLIN);
        else if (got < 0 && errno != EINTR)
            die("read at byte %zu of %zu: %s", received, length, error_name(errno));
        else if (got == 0)
            die("end of stream at byte %zu of %zu", received, length);
        else if (got > 0)
            received += got;
    }
}

// Smaller and smaller: where a large write is refused, the last segment may have room for a byte.
static size_t fill_for_now(int socket) {
    static const unsigned char bytes[65536];
    size_t total = 0;
    for (size_t size = sizeof bytes; size > 0; size /= 16) {
        for (ssize_t sent; (sent = write(socket, bytes, size)) != -1;)
            total += sent;
        if (errno != EAGAIN)
            die("write after %zu bytes: %s", total, error_name(errno));
    }
    return total;
}

size_t fill_up(int socket) {
    struct pollfd entry = {.fd = socket, .events = POLLOUT};
    size_t total = 0, more;
    set_nonblocking(socket, true);
    do {
        more = fill_for_now(socket);
        total += more;
        // Acknowledgements, which may take 40 ms, make room.
    } while (poll(&entry, 1, 60) == 1 || more > 0);
    set_nonblocking(socket, false);
    return total;
}

static size_t round_size(int round) { return 1 + round * 37 % 300; }

static void round_send(int socket, int round) {
    unsigned char bytes[512];
    size_t size = round_size(round);
    pattern(bytes, size, 0, round);
    send_all(socket, bytes, size);
}

static void round_receive(int socket, int round) {
    unsigned char bytes[512];
    size_t size = round_size(round);
    receive_exactly(socket, bytes, size);
    size_t good = pattern_holds(bytes, size, 0, round);
    if (good != size)
        die("round %d: byte %zu of %zu is wrong", round, good, size);
}

void echo(int socket, int count) {
    unsigned char bytes[3000];
    for (int i = 0; i < count; i++) {
        size_t size = 1 + i * 97 % sizeof bytes;
        pattern(bytes, size, 0, i);
        send_all(socket, bytes, size);
        memset(bytes, 0, size);
        receive_exactly(socket, bytes, size);
        if (pattern_holds(bytes, size, 0, i) != size)
            die("echo %d is wrong", i);
    }
}

void rounds(int socket, bool first, int rounds) {
    for (int round = 0; round < rounds; round++) {
        if (first)
            round_send(socket, 2 * round);
        round_receive(socket, first ? 2 * round + 1 : 2 * round);
        if (!first)
            round_send(socket, 2 * round + 1);
    }
}

void warm(int socket, bool first) { rounds(socket, first, role.warm); }

int arenas(void) {
    int count = 0;
    char line[512];
    FILE *maps = fopen("/proc/self/maps", "re");
    while (maps && fgets(line, sizeof line, maps))
        count += strstr(line, "memfd:softrdma-smc-arena") != NULL;
    if (maps)
        fclose(maps);
    return count;
}

void settle(int socket) {
    enum { TRIES = 50 };
    bool preloaded = getenv("LD_PRELOAD") != NULL;
    if (trade(preloaded) == 1 && preloaded) {
        bool moved = false;
        for (int i = 0; i < TRIES && !moved; i++) {
            nap_ms(1);
            rounds(socket, role.is_near, 16);
            bool mine = arenas() > 0;
            moved = trade(mine) == 1 && mine;
        }
        rounds(socket, role.is_near, 16);
    }
    remark("arenas: %d", arenas());
}

void talk(int socket) {
    // Nothing of it may get into what the other end still reads.
    meet();
    rounds(socket, role.is_near, 16);
    say("talked");
}

void talk_to_self(int one, int other, int rounds) {
    for (int round = 0; round < rounds; round++) {
        round_send(one, round);
        round_receive(other, round);
        round_send(other, round + 1);
        round_receive(one, round + 1);
    }
}

// --- playing

static int accept_one(int listener) { return MUST(accept(listener, NULL, NULL)); }

static void announce(int listener) {
    uint16_t port = port_of(listener);
    if (write(PORT_FD, &port, sizeof port) != sizeof port)
        die("cannot say which port");
    close(PORT_FD);
    role.port = port;
}

void play(const struct scenario *scenario) {
    int socket = -1;
    if (scenario->start != ALONE && role.accepts) {
        // More than any scenario connects: an overflow costs a second, now and then.
        int listener = new_listener(1024);
        announce(listener);
        socket = listener;
        // The listener stays open, as it does in most servers.
        if (scenario->start == CONNECTED)
            socket = accept_one(listener);
    } else if (scenario->start == CONNECTED) {
        socket = connect_to(role.port);
    }
    if (scenario->start == CONNECTED) {
        // Nagle's algorithm would hold back for 40 ms what the other end is waiting for beside the connection.
        MUST(setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)));
        warm(socket, role.is_near);
        // Without a warm-up the move is to come in the middle of the scenario.
        if (role.warm > 0)
            settle(socket);
    }
    (role.is_near ? scenario->near : scenario->far)(socket);
    if (scenario->start != CONNECTED)
        remark("arenas: %d", arenas());
    say("done");
    exit(0);
}
