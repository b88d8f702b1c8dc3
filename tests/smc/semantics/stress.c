// Any mixture of operations on both ends, drawn by seed; every byte is checked by where it stands in its stream.
//
// What a process sends is settled by the seed alone, so that the transcript is; which calls carry it and how they meet
// is not. SEMANTICS_SEED sets the seed, which a complaint names.
#include "stress.h"

#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/time.h>

enum { CONNECTIONS = 12, LARGEST = 100000, LARGEST_STREAM = 1 << 21 };

uint64_t stress_seed(void) {
    const char *text = getenv("SEMANTICS_SEED");
    return text ? strtoull(text, NULL, 10) : 1;
}

uint32_t draw(struct draws *draws, uint32_t below) {
    unsigned char bytes[4];
    pattern(bytes, 4, 8 * draws->count++, draws->seed);
    uint32_t number = bytes[0] | bytes[1] << 8 | bytes[2] << 16 | (uint32_t)bytes[3] << 24;
    return number % below;
}

static bool chance(struct draws *draws, uint32_t of) { return draw(draws, of) == 0; }

static size_t draw_size(struct draws *draws, size_t most) {
    static const size_t limits[] = {16, 200, 200, 5000, LARGEST};
    size_t limit = limits[draw(draws, 5)];
    size_t size = 1 + draw(draws, limit);
    return size < most ? size : most;
}

// --- sending

static ssize_t send_in_parts(struct stream *stream, unsigned char *bytes, size_t size, int how) {
    size_t first = draw(&stream->draws, size + 1), second = draw(&stream->draws, size - first + 1);
    struct iovec parts[3] = {{bytes, first}, {bytes + first, second}, {bytes + first + second, size - first - second}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 3};
    if (how == 0)
        return writev(stream->socket, parts, 3);
    if (how == 1)
        return sendmsg(stream->socket, &message, MSG_NOSIGNAL);
    struct mmsghdr messages[2] = {{.msg_hdr = {.msg_iov = parts, .msg_iovlen = 1}},
                                  {.msg_hdr = {.msg_iov = parts + 1, .msg_iovlen = 2}}};
    int count = sendmmsg(stream->socket, messages, 2, MSG_NOSIGNAL);
    return count < 0 ? -1 : (ssize_t)messages[0].msg_len + (count > 1 ? messages[1].msg_len : 0);
}

static ssize_t send_from_file(struct stream *stream, const unsigned char *bytes, size_t size) {
    int file = MUST(memfd_create("stress", MFD_CLOEXEC));
    if (write(file, bytes, size) != (ssize_t)size)
        die("write into a file");
    off_t from = 0;
    ssize_t sent = sendfile(stream->socket, file, &from, size);
    int error = errno;
    close(file);
    errno = error;
    return sent;
}

// What went into the pipe must go out of it, so this waits even where the socket does not.
static ssize_t send_through_pipe(struct stream *stream, const unsigned char *bytes, size_t size) {
    int ends[2];
    MUST(pipe(ends));
    size = size < 30000 ? size : 30000;
    if (write(ends[1], bytes, size) != (ssize_t)size)
        die("write into a pipe");
    for (size_t sent = 0; sent < size;) {
        ssize_t moved = splice(ends[0], NULL, stream->socket, NULL, size - sent, 0);
        if (moved < 0 && (errno == EAGAIN || errno == EINTR))
            nap_ms(1);
        else if (moved <= 0)
            die("seed %llu: splice: %zd %s", (unsigned long long)stress_seed(), moved, error_name(errno));
        else
            sent += moved;
    }
    close(ends[0]);
    close(ends[1]);
    return size;
}

ssize_t send_some(struct stream *stream, bool may_wait) {
    static _Thread_local unsigned char bytes[LARGEST];
    size_t size = draw_size(&stream->draws, stream->total - stream->at);
    pattern(bytes, size, stream->at, stream->seed);
    switch (draw(&stream->draws, 12)) {
    case 0: case 1: return write(stream->socket, bytes, size);
    case 2: case 3: return send(stream->socket, bytes, size, MSG_NOSIGNAL);
    case 4: return send(stream->socket, bytes, size, MSG_MORE | MSG_NOSIGNAL);
    case 5: return send(stream->socket, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    case 6: return sendto(stream->socket, bytes, size, MSG_NOSIGNAL, NULL, 0);
    case 7: return send_in_parts(stream, bytes, size, 0);
    case 8: return send_in_parts(stream, bytes, size, 1);
    case 9: return send_in_parts(stream, bytes, size, 2);
    case 10: return send_from_file(stream, bytes, size);
    default: return may_wait ? send_through_pipe(stream, bytes, size) : write(stream->socket, bytes, size);
    }
}

// --- receiving

static ssize_t receive_in_parts(struct stream *stream, unsigned char *bytes, size_t size, int how) {
    size_t first = draw(&stream->draws, size + 1);
    struct iovec parts[2] = {{bytes, first}, {bytes + first, size - first}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    return how == 0 ? readv(stream->socket, parts, 2) : recvmsg(stream->socket, &message, 0);
}

// What was looked at is what is read after it.
static ssize_t look_and_receive(struct stream *stream, unsigned char *bytes, size_t size) {
    ssize_t seen = recv(stream->socket, bytes, size, MSG_PEEK);
    if (seen <= 0)
        return seen;
    if (pattern_holds(bytes, seen, stream->at, stream->seed) != (size_t)seen)
        die("seed %llu: looked at wrong bytes", (unsigned long long)stress_seed());
    memset(bytes, 0, seen);
    ssize_t got = recv(stream->socket, bytes, seen, MSG_DONTWAIT);
    if (got != seen)
        die("seed %llu: looked at %zd bytes and read %zd", (unsigned long long)stress_seed(), seen, got);
    return got;
}

static ssize_t receive_through_pipe(struct stream *stream, unsigned char *bytes, size_t size) {
    int ends[2];
    MUST(pipe(ends));
    ssize_t moved = splice(stream->socket, NULL, ends[1], NULL, size < 30000 ? size : 30000, 0);
    int error = errno;
    if (moved > 0)
        receive_exactly(ends[0], bytes, moved);
    close(ends[0]);
    close(ends[1]);
    errno = error;
    return moved;
}

ssize_t receive_some(struct stream *stream) {
    static _Thread_local unsigned char bytes[LARGEST];
    size_t left = stream->total - stream->at, size = draw_size(&stream->draws, LARGEST);
    bool checked = true;
    ssize_t got;
    uint32_t how = draw(&stream->draws, 12);
    switch (how) {
    case 0: case 1: case 2: got = read(stream->socket, bytes, size); break;
    case 3: got = recv(stream->socket, bytes, size, 0); break;
    case 4: got = recv(stream->socket, bytes, size, MSG_DONTWAIT); break;
    case 5: got = recv(stream->socket, bytes, size < left ? size : left, MSG_WAITALL); break;
    case 6: got = receive_in_parts(stream, bytes, size, 0); break;
    case 7: got = receive_in_parts(stream, bytes, size, 1); break;
    case 8: got = look_and_receive(stream, bytes, size); break;
    case 9: got = receive_through_pipe(stream, bytes, size); break;
    case 10:
        got = recv(stream->socket, NULL, size, MSG_TRUNC);
        checked = false;
        break;
    default: got = recvfrom(stream->socket, bytes, size, 0, NULL, NULL); break;
    }
    if (got > 0 && checked) {
        size_t good = pattern_holds(bytes, got, stream->at, stream->seed);
        if (good != (size_t)got)
            die("seed %llu: byte %zu of a stream is wrong: byte %zu of the %zd of call %u",
                (unsigned long long)stress_seed(), stream->at + good, good, got, how);
    }
    return got;
}

// --- what may happen at any time and must not matter

static void disturb(struct stream *stream) {
    int number = 0;
    switch (draw(&stream->draws, 40)) {
    case 0: nap_ms(draw(&stream->draws, 3)); break;
    case 1: sched_yield(); break;
    case 2: close(MUST(dup(stream->socket))); break;
    case 3: MUST(ioctl(stream->socket, FIONREAD, &number)); break;
    case 4: MUST(getsockopt(stream->socket, SOL_SOCKET, SO_ERROR, &number, &(socklen_t){sizeof number})); break;
    case 5: await(stream->socket, POLLIN | POLLOUT); break;
    default: break;
    }
}

// Goes on until the call would wait or the stream is through; what it returns is poll's events to wait for, or 0.
static short push_on(struct stream *stream, bool may_wait) {
    while (stream->at < stream->total) {
        disturb(stream);
        ssize_t sent = send_some(stream, may_wait);
        if (sent < 0 && errno == EAGAIN)
            return POLLOUT;
        if (sent < 0 && errno != EINTR)
            die("seed %llu: send at %zu: %s", (unsigned long long)stress_seed(), stream->at, error_name(errno));
        stream->at += sent > 0 ? sent : 0;
        if (!may_wait && chance(&stream->draws, 8))
            return POLLOUT;
    }
    if (!stream->ended)
        MUST(shutdown(stream->socket, SHUT_WR));
    stream->ended = true;
    return 0;
}

static short pull_on(struct stream *stream, bool may_wait) {
    while (!stream->ended) {
        disturb(stream);
        ssize_t got = receive_some(stream);
        if (got < 0 && errno == EAGAIN)
            return POLLIN;
        if (got < 0 && errno != EINTR)
            die("seed %llu: receive at %zu: %s", (unsigned long long)stress_seed(), stream->at, error_name(errno));
        // Nothing was asked for where the stream is through but for its end.
        if (got == 0 && stream->at == stream->total)
            stream->ended = recv(stream->socket, &(char){0}, 1, may_wait ? 0 : MSG_DONTWAIT) == 0;
        else if (got == 0)
            die("seed %llu: end at %zu of %zu", (unsigned long long)stress_seed(), stream->at, stream->total);
        stream->at += got > 0 ? got : 0;
        if (!may_wait && chance(&stream->draws, 8))
            return POLLIN;
    }
    return 0;
}

// --- a thread for each direction, which waits in its calls

static void *push_thread(void *argument) {
    while (push_on(argument, true))
        await(((struct stream *)argument)->socket, POLLOUT);
    return NULL;
}

static void *pull_thread(void *argument) {
    while (pull_on(argument, true))
        await(((struct stream *)argument)->socket, POLLIN);
    return NULL;
}

// --- one thread for both, which waits for events

static void wait_by_select(int socket, short events) {
    fd_set in, out;
    FD_ZERO(&in);
    FD_ZERO(&out);
    if (events & POLLIN)
        FD_SET(socket, &in);
    if (events & POLLOUT)
        FD_SET(socket, &out);
    if (select(socket + 1, &in, &out, NULL, NULL) < 0 && errno != EINTR)
        die("select: %s", error_name(errno));
}

static void wait_by_epoll(int epoll, int socket, short events, bool edge) {
    struct epoll_event event = {.events = (uint32_t)events | (edge ? EPOLLET : 0)};
    // Changing it looks again at what is there: no edge is lost.
    MUST(epoll_ctl(epoll, EPOLL_CTL_MOD, socket, &event));
    if (epoll_wait(epoll, &event, 1, -1) < 0 && errno != EINTR)
        die("epoll_wait: %s", error_name(errno));
}

static void *event_thread(void *argument) {
    struct connection *connection = argument;
    int socket = connection->out.socket, epoll = MUST(epoll_create1(0)), way = connection->way % 4;
    struct epoll_event none = {.events = 0};
    MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, socket, &none));
    set_nonblocking(socket, true);
    for (;;) {
        short events = push_on(&connection->out, false) | pull_on(&connection->in, false);
        if (!events)
            break;
        if (way == 0)
            await(socket, events);
        else if (way == 1)
            wait_by_select(socket, events);
        else
            wait_by_epoll(epoll, socket, events, way == 3);
    }
    close(epoll);
    return NULL;
}

static void *connection_thread(void *argument) {
    struct connection *connection = argument;
    if (connection->way >= 4) {
        event_thread(connection);
    } else {
        pthread_t pusher;
        pthread_create(&pusher, NULL, push_thread, &connection->out);
        pull_thread(&connection->in);
        pthread_join(pusher, NULL);
    }
    connection->arenas = arenas();
    MUST(close(connection->out.socket));
    return NULL;
}

// --- all of it

static void ignore(int signal) { (void)signal; }

// Signals at any moment, in half of the runs.
static void maybe_storm(struct draws *draws) {
    struct sigaction action = {.sa_handler = ignore, .sa_flags = chance(draws, 2) ? SA_RESTART : 0};
    struct itimerval every = {.it_interval = {0, 900}, .it_value = {0, 900}};
    MUST(sigaction(SIGALRM, &action, NULL));
    if (chance(draws, 2))
        MUST(setitimer(ITIMER_REAL, &every, NULL));
}

static void set_up(struct connection *connection, int socket, int number) {
    struct draws sizes = {stress_seed() * 1000 + number, 0}, ways = {sizes.seed + 500 + is_near() * 250, 0};
    size_t totals[2] = {draw(&sizes, LARGEST_STREAM), draw(&sizes, LARGEST_STREAM)};
    // Some directions carry nothing.
    totals[0] = chance(&sizes, 8) ? 0 : totals[0];
    totals[1] = chance(&sizes, 8) ? 0 : totals[1];
    *connection = (struct connection){
        .way = draw(&ways, 8),
        .out = {socket, sizes.seed * 2 + is_near(), 0, totals[is_near()], false, {ways.seed + 1000000, 0}},
        .in = {socket, sizes.seed * 2 + !is_near(), 0, totals[!is_near()], false, {ways.seed + 2000000, 0}},
    };
}

static void stress(int listener) {
    struct connection connections[CONNECTIONS];
    pthread_t threads[CONNECTIONS];
    struct draws draws = {stress_seed() * 7 + is_near(), 0};
    size_t sent = 0, received = 0;
    int most_arenas = 0;
    say("seed %llu", (unsigned long long)stress_seed());
    for (int i = 0; i < CONNECTIONS; i++) {
        set_up(connections + i, is_near() ? connect_to_far() : MUST(accept(listener, NULL, NULL)), i);
        // The others are moved on the way.
        if (i % 2)
            settle(connections[i].out.socket);
    }
    maybe_storm(&draws);
    for (int i = 0; i < CONNECTIONS; i++)
        pthread_create(threads + i, NULL, connection_thread, connections + i);
    for (int i = 0; i < CONNECTIONS; i++) {
        pthread_join(threads[i], NULL);
        sent += connections[i].out.at;
        received += connections[i].in.at;
        most_arenas = connections[i].arenas > most_arenas ? connections[i].arenas : most_arenas;
    }
    remark("arenas: %d", most_arenas);
    MUST(setitimer(ITIMER_REAL, &(struct itimerval){{0, 0}, {0, 0}}, NULL));
    say("sent %zu, received %zu", sent, received);
    meet();
}

const struct scenario stress_scenarios[] = {
    {"stress", LISTENING, stress, stress},
    {"kill-rounds", ALONE, kill_rounds, NULL},
    {NULL},
};
