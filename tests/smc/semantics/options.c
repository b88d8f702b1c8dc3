// Socket options and addresses.
#include "semantics.h"

#include <linux/net_tstamp.h>
#include <linux/sockios.h>

static int get(int s, int level, int name) {
    int value = -12345;
    socklen_t length = sizeof value;
    if (getsockopt(s, level, name, &value, &length) < 0)
        return -errno;
    return length == sizeof value ? value : -1000 - (int)length;
}

static int set(int s, int level, int name, int value) {
    return setsockopt(s, level, name, &value, sizeof value);
}

// --- what is set can be got

static void round_trips(int s) {
    say("SO_TYPE is SOCK_STREAM: %d", get(s, SOL_SOCKET, SO_TYPE) == SOCK_STREAM);
    say("SO_DOMAIN is the family: %d", get(s, SOL_SOCKET, SO_DOMAIN) == family());
    say("SO_PROTOCOL is TCP: %d", get(s, SOL_SOCKET, SO_PROTOCOL) == IPPROTO_TCP);
    say("SO_ACCEPTCONN: %d", get(s, SOL_SOCKET, SO_ACCEPTCONN));
    say("SO_ERROR: %d", get(s, SOL_SOCKET, SO_ERROR));
    static const struct {
        const char *text;
        int level, name;
    } switches[] = {
        {"SO_KEEPALIVE", SOL_SOCKET, SO_KEEPALIVE},   {"SO_REUSEADDR", SOL_SOCKET, SO_REUSEADDR},
        {"SO_OOBINLINE", SOL_SOCKET, SO_OOBINLINE},   {"TCP_NODELAY", IPPROTO_TCP, TCP_NODELAY},
        {"TCP_CORK", IPPROTO_TCP, TCP_CORK},          {"SO_TIMESTAMP", SOL_SOCKET, SO_TIMESTAMP},
        {"SO_DONTROUTE", SOL_SOCKET, SO_DONTROUTE},
    };
    for (size_t i = 0; i < sizeof switches / sizeof *switches; i++) {
        int before = get(s, switches[i].level, switches[i].name);
        int done = set(s, switches[i].level, switches[i].name, !before);
        int after = get(s, switches[i].level, switches[i].name);
        set(s, switches[i].level, switches[i].name, before);
        say("%s: %d, set %d, then %d, then %d", switches[i].text, before, done, after,
            get(s, switches[i].level, switches[i].name));
    }
    // What it is depends on the traffic.
    SHOW(set(s, IPPROTO_TCP, TCP_QUICKACK, 1));
    SHOW(set(s, SOL_SOCKET, SO_RCVBUF, 100000));
    say("SO_RCVBUF: %d", get(s, SOL_SOCKET, SO_RCVBUF));
    SHOW(set(s, SOL_SOCKET, SO_SNDBUF, 100000));
    say("SO_SNDBUF: %d", get(s, SOL_SOCKET, SO_SNDBUF));
    SHOW(set(s, SOL_SOCKET, SO_PRIORITY, 3));
    say("SO_PRIORITY: %d", get(s, SOL_SOCKET, SO_PRIORITY));
    SHOW(set(s, IPPROTO_TCP, TCP_KEEPIDLE, 77));
    say("TCP_KEEPIDLE: %d", get(s, IPPROTO_TCP, TCP_KEEPIDLE));
    SHOW(set(s, IPPROTO_TCP, TCP_USER_TIMEOUT, 5000));
    say("TCP_USER_TIMEOUT: %d", get(s, IPPROTO_TCP, TCP_USER_TIMEOUT));
    SHOW(set(s, SOL_SOCKET, 9999, 1));
    SHOW(set(s, 9999, 1, 1));
    say("unknown option: %s", error_name(-get(s, SOL_SOCKET, 9999)));
    SHOW(set(777, SOL_SOCKET, SO_KEEPALIVE, 1));
    talk(s);
}

static void tcp_info(int s) {
    struct tcp_info info;
    socklen_t length = sizeof info;
    memset(&info, 0, sizeof info);
    SHOW(getsockopt(s, IPPROTO_TCP, TCP_INFO, &info, &length));
    say("established: %d", info.tcpi_state == TCP_ESTABLISHED);
    say("has an MSS: %d", info.tcpi_snd_mss > 0);
    char name[32] = "";
    length = sizeof name;
    SHOW(getsockopt(s, IPPROTO_TCP, TCP_CONGESTION, name, &length));
    say("has congestion control: %d", name[0] != 0);
    talk(s);
    // A server looks whether the client is still there before it starts on an answer.
    if (!is_near()) {
        meet();
        await(s, POLLRDHUP);
        length = sizeof info;
        MUST(getsockopt(s, IPPROTO_TCP, TCP_INFO, &info, &length));
        say("peer has closed: %d", info.tcpi_state == TCP_CLOSE_WAIT);
    } else {
        SHOW(shutdown(s, SHUT_WR));
        meet();
    }
}

// --- addresses

static void say_address(const char *what, int result, const struct sockaddr_storage *address, socklen_t length) {
    bool loopback = false;
    if (address->ss_family == AF_INET)
        loopback = ((const struct sockaddr_in *)address)->sin_addr.s_addr == htonl(INADDR_LOOPBACK);
    else if (address->ss_family == AF_INET6)
        loopback = IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)address)->sin6_addr);
    say("%s: %d, family %d, length %d, loopback %d", what, result, address->ss_family == family(),
        length == (family() == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6)), loopback);
}

static uint16_t port_in(const struct sockaddr_storage *address) {
    return ntohs(address->ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)address)->sin6_port
                                                : ((const struct sockaddr_in *)address)->sin_port);
}

static void addresses(int s) {
    struct sockaddr_storage own, peer;
    socklen_t own_length = sizeof own, peer_length = sizeof peer;
    int result = getsockname(s, (struct sockaddr *)&own, &own_length);
    say_address("own", result, &own, own_length);
    result = getpeername(s, (struct sockaddr *)&peer, &peer_length);
    say_address("peer", result, &peer, peer_length);
    say("mine is the other's peer: %d", trade(port_in(&own)) == port_in(&peer));
    // Too short a buffer: filled, and the length that it would take.
    unsigned char small[4] = {0};
    socklen_t length = 2;
    SHOW(getpeername(s, (struct sockaddr *)small, &length));
    say("length %d, third byte %d", length > 2, small[2]);
    talk(s);
}

// --- time limits

static void say_limit(int s, int name) {
    struct timeval limit;
    socklen_t length = sizeof limit;
    MUST(getsockopt(s, SOL_SOCKET, name, &limit, &length));
    say("%s: %ld.%06ld", name == SO_RCVTIMEO ? "SO_RCVTIMEO" : "SO_SNDTIMEO", (long)limit.tv_sec, (long)limit.tv_usec);
}

static void receive_limit_near(int s) {
    meet();
    send_all(s, "data", 4);
    meet();
    pid_t peer = trade(0);
    wait_until_asleep(peer, peer);
    send_all(s, "in time", 7);
    talk(s);
}

static void receive_limit_far(int s) {
    char bytes[16];
    struct iovec part = {bytes, 16};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    struct timeval limit = {0, 60000}, seconds = {20, 0}, wrong = {0, 2000000}, none = {0, 0};
    say_limit(s, SO_RCVTIMEO);
    SHOW(setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &wrong, sizeof wrong));
    SHOW(setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit));
    say_limit(s, SO_RCVTIMEO);
    uint64_t start = now_ms();
    SHOW(read(s, bytes, 16));
    SHOW(recv(s, bytes, 16, 0));
    SHOW(recvmsg(s, &message, 0));
    SHOW(readv(s, &part, 1));
    SHOW(recv(s, bytes, 16, MSG_PEEK));
    uint64_t took = now_ms() - start;
    say("took five times 60 ms: %d", took >= 290 && took < 5000);
    // poll has its own.
    struct pollfd entry = {.fd = s, .events = POLLIN};
    SHOW(poll(&entry, 1, 1));
    meet();
    await(s, POLLIN);
    SHOW(read(s, bytes, 16));
    meet();
    SHOW(setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &seconds, sizeof seconds));
    trade(getpid());
    SHOW(read(s, bytes, 16));
    SHOW(setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof none));
    talk(s);
}

static void send_limit_near(int s) {
    static char bytes[1 << 16];
    struct timeval limit = {0, 100000}, none = {0, 0};
    size_t total = fill_up(s);
    SHOW(setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit));
    say_limit(s, SO_SNDTIMEO);
    uint64_t start = now_ms();
    ssize_t sent;
    // What still went in was a part; then the time is over.
    while ((sent = write(s, bytes, sizeof bytes)) > 0)
        total += sent;
    say("write: %zd %s, waited: %d", sent, error_name(errno), now_ms() - start >= 100);
    SHOW(setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &none, sizeof none));
    trade(total);
    talk(s);
}

static void send_limit_far(int s) {
    size_t total = trade(0);
    char *bytes = malloc(total);
    receive_exactly(s, bytes, total);
    talk(s);
}

// A call that moved something before its time was over returns that.
static void send_part_near(int s) {
    enum { HUGE_SIZE = 256 << 20 };
    struct timeval limit = {0, 150000}, none = {0, 0};
    char *bytes = calloc(HUGE_SIZE, 1);
    SHOW(setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit));
    ssize_t sent = write(s, bytes, HUGE_SIZE);
    say("a part was sent: %d", sent > 0 && sent < HUGE_SIZE);
    SHOW(setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &none, sizeof none));
    trade(sent);
    talk(s);
}

// --- SO_RCVLOWAT

static void low_water_near(int s) {
    send_all(s, "0123456789", 10);
    meet();
    meet();
    send_all(s, "0123456789", 10);
    meet();
    send_all(s, "0123456789", 10);
    pid_t peer = trade(0);
    wait_until_asleep(peer, peer);
    // As much as the mark: what the sleeper has taken already does not count with the kernel.
    send_all(s, "01234567890123456789", 20);
    talk(s);
    send_all(s, "end", 3);
    SHOW(shutdown(s, SHUT_WR));
    meet();
}

static void low_water_far(int s) {
    char bytes[64];
    struct pollfd entry = {.fd = s, .events = POLLIN};
    int epoll = MUST(epoll_create1(0));
    struct epoll_event event = {.events = EPOLLIN};
    MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, s, &event));
    say("SO_RCVLOWAT: %d", get(s, SOL_SOCKET, SO_RCVLOWAT));
    SHOW(set(s, SOL_SOCKET, SO_RCVLOWAT, 20));
    say("SO_RCVLOWAT: %d", get(s, SOL_SOCKET, SO_RCVLOWAT));
    meet();
    wait_bytes(s, 10);
    SHOW(poll(&entry, 1, 20));
    SHOW(epoll_wait(epoll, &event, 1, 20));
    // Not waiting takes what there is.
    say_bytes("not waiting", bytes, recv(s, bytes, 64, MSG_DONTWAIT | MSG_PEEK));
    meet();
    SHOW(poll(&entry, 1, 5000));
    SHOW(epoll_wait(epoll, &event, 1, 5000));
    say_bytes("enough", bytes, read(s, bytes, 64));
    meet();
    wait_bytes(s, 10);
    trade(getpid());
    // Waits for as much as the mark says.
    say_bytes("waited for", bytes, recv(s, bytes, 64, 0));
    SHOW(set(s, SOL_SOCKET, SO_RCVLOWAT, 1));
    talk(s);
    SHOW(set(s, SOL_SOCKET, SO_RCVLOWAT, 20));
    meet();
    // The end of the stream needs no mark.
    SHOW(poll(&entry, 1, 5000));
    say_bytes("to the end", bytes, read(s, bytes, 64));
    SHOW(read(s, bytes, 64));
}

// --- small buffers: a program that asks for them hears soon that nobody reads

static void small_near(int s) {
    SHOW(set(s, SOL_SOCKET, SO_SNDBUF, 4096));
    size_t sent = fill_up(s);
    trade(sent);
    say("little is under way: %d", sent < 100000);
    talk(s);
}

static void small_far(int s) {
    SHOW(set(s, SOL_SOCKET, SO_RCVBUF, 4096));
    size_t sent = trade(0);
    char *bytes = malloc(sent);
    receive_exactly(s, bytes, sent);
    free(bytes);
    talk(s);
}

// --- timestamps of what was sent lie in the socket's error queue: that it is not empty is an event, and not the connection's end

enum { STAMPED = 50 };

static void stamps_near(int s) {
    char answer[8];
    int epoll = new_epoll();
    int stamps = SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE | SOF_TIMESTAMPING_OPT_TSONLY;
    SHOW(set(s, SOL_SOCKET, SO_TIMESTAMPING, stamps));
    MUST(control(epoll, EPOLL_CTL_ADD, s, EPOLLIN, 0));
    for (int i = 0; i < STAMPED; i++) {
        struct epoll_event event = {0};
        send_all(s, "question", 8);
        while (!(event.events & EPOLLIN))
            MUST(epoll_wait(epoll, &event, 1, -1));
        receive_exactly(s, answer, sizeof answer);
    }
    MUST(close(epoll));
    talk(s);
}

static void stamps_far(int s) {
    char question[8];
    for (int i = 0; i < STAMPED; i++) {
        receive_exactly(s, question, sizeof question);
        // The other end sleeps by now.
        nap_ms(2);
        send_all(s, question, sizeof question);
    }
    talk(s);
}

const struct scenario option_scenarios[] = {
    {"options", CONNECTED, round_trips, round_trips},
    {"tcp-info", CONNECTED, tcp_info, tcp_info},
    {"addresses", CONNECTED, addresses, addresses},
    {"receive-time-limit", CONNECTED, receive_limit_near, receive_limit_far},
    {"send-time-limit", CONNECTED, send_limit_near, send_limit_far},
    {"send-time-limit-part", CONNECTED, send_part_near, send_limit_far},
    {"small-buffers", CONNECTED, small_near, small_far},
    {"timestamps-of-what-was-sent", CONNECTED, stamps_near, stamps_far},
    {"low-water-mark", CONNECTED, low_water_near, low_water_far},
    {NULL},
};
