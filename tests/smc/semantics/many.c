// Many connections at once: an epoll server that echoes, and clients that check every byte.
#include "semantics.h"

enum { CONNECTIONS = 200, EXCHANGES = 40, MAXIMUM = 20000 };

struct echo {
    int socket;
    size_t pending, from;
    char bytes[8192];
};

static void watch(int epoll, int operation, int socket, uint32_t events, void *data) {
    struct epoll_event event = {.events = events, .data.ptr = data};
    MUST(epoll_ctl(epoll, operation, socket, &event));
}

// Reads and writes as far as it goes; false at the end of the stream.
static bool progress(int epoll, struct echo *echo) {
    for (;;) {
        while (echo->pending > 0) {
            ssize_t sent = send(echo->socket, echo->bytes + echo->from, echo->pending, MSG_NOSIGNAL);
            if (sent < 0 && errno == EAGAIN) {
                watch(epoll, EPOLL_CTL_MOD, echo->socket, EPOLLOUT, echo);
                return true;
            }
            if (sent <= 0)
                die("send: %s", error_name(errno));
            echo->from += sent;
            echo->pending -= sent;
        }
        ssize_t got = recv(echo->socket, echo->bytes, sizeof echo->bytes, 0);
        if (got < 0 && errno == EAGAIN) {
            watch(epoll, EPOLL_CTL_MOD, echo->socket, EPOLLIN, echo);
            return true;
        }
        if (got < 0)
            die("recv: %s", error_name(errno));
        if (got == 0)
            return false;
        echo->from = 0;
        echo->pending = got;
    }
}

static void echo_far(int listener) {
    int epoll = MUST(epoll_create1(0)), accepted = 0, ended = 0;
    struct echo *echoes = calloc(CONNECTIONS, sizeof *echoes);
    struct epoll_event events[32];
    set_nonblocking(listener, true);
    watch(epoll, EPOLL_CTL_ADD, listener, EPOLLIN, NULL);
    while (ended < CONNECTIONS) {
        int count = MUST(epoll_wait(epoll, events, 32, -1));
        for (int i = 0; i < count; i++) {
            struct echo *echo = events[i].data.ptr;
            int s;
            while (!echo && (s = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                MUST(setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)));
                echoes[accepted].socket = s;
                watch(epoll, EPOLL_CTL_ADD, s, EPOLLIN, &echoes[accepted++]);
            }
            if (echo && !progress(epoll, echo)) {
                MUST(close(echo->socket));
                ended++;
            }
        }
    }
    // Who counts from outside what became of them sees all.
    nap_ms(200);
    say("%d connections accepted, %d ended", accepted, ended);
}

struct client {
    int socket;
    int exchange;
    size_t size, sent, received;
};

static size_t next_size(int client, int exchange) {
    unsigned char random[4];
    pattern(random, 4, exchange * 4, 1000 + client);
    unsigned number = random[0] | random[1] << 8 | random[2] << 16;
    // Mostly small.
    return 1 + number % (number % 8 == 0 ? MAXIMUM : 300);
}

static void advance(struct client *client, int number, unsigned char *bytes) {
    if (client->sent < client->size) {
        size_t want = client->size - client->sent;
        pattern(bytes, want, client->sent, client->exchange * 1000 + number);
        ssize_t sent = send(client->socket, bytes, want, MSG_DONTWAIT);
        if (sent < 0 && errno != EAGAIN)
            die("client %d: send: %s", number, error_name(errno));
        client->sent += sent > 0 ? sent : 0;
    }
    ssize_t got = recv(client->socket, bytes, MAXIMUM, MSG_DONTWAIT);
    if (got == 0 || (got < 0 && errno != EAGAIN))
        die("client %d: recv: %zd %s", number, got, error_name(errno));
    if (got > 0 && pattern_holds(bytes, got, client->received, client->exchange * 1000 + number) != (size_t)got)
        die("client %d, exchange %d: wrong bytes after %zu", number, client->exchange, client->received);
    client->received += got > 0 ? got : 0;
    if (client->received == client->size)
        *client = (struct client){client->socket, client->exchange + 1, next_size(number, client->exchange + 1), 0, 0};
}

static void echo_near(int unused) {
    (void)unused;
    static struct client clients[CONNECTIONS];
    static struct pollfd entries[CONNECTIONS];
    static unsigned char bytes[MAXIMUM];
    int open = CONNECTIONS;
    for (int i = 0; i < CONNECTIONS; i++)
        clients[i] = (struct client){connect_to_far(), 0, next_size(i, 0), 0, 0};
    while (open > 0) {
        for (int i = 0; i < CONNECTIONS; i++) {
            struct client *client = clients + i;
            short out = client->sent < client->size ? POLLOUT : 0;
            entries[i] = (struct pollfd){client->exchange < EXCHANGES ? client->socket : -1, POLLIN | out, 0};
        }
        MUST(poll(entries, CONNECTIONS, -1));
        for (int i = 0; i < CONNECTIONS; i++) {
            if (!entries[i].revents)
                continue;
            advance(clients + i, i, bytes);
            if (clients[i].exchange == EXCHANGES) {
                MUST(close(clients[i].socket));
                open--;
            }
        }
    }
    say("%d clients, %d exchanges each", CONNECTIONS, EXCHANGES);
}

// The same over connections that come and go.
static void churn_near(int unused) {
    (void)unused;
    static unsigned char bytes[MAXIMUM];
    for (int i = 0; i < CONNECTIONS; i++) {
        struct client client = {connect_to_far(), 0, next_size(i, 0), 0, 0};
        for (int exchange = 0; exchange < i % 20; exchange++) {
            size_t size = next_size(i, exchange);
            pattern(bytes, size, 0, exchange);
            send_all(client.socket, bytes, size);
            memset(bytes, 0, size);
            receive_exactly(client.socket, bytes, size);
            if (pattern_holds(bytes, size, 0, exchange) != size)
                die("connection %d, exchange %d is wrong", i, exchange);
        }
        MUST(close(client.socket));
    }
    say("%d connections one after the other", CONNECTIONS);
}

const struct scenario many_scenarios[] = {
    {"many-connections", LISTENING, echo_near, echo_far},
    {"coming-and-going", LISTENING, churn_near, echo_far},
    {NULL},
};
