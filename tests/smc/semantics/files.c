// A connection behind the calls that are made for files: stdio, sendfile, splice, tee, copy_file_range.
#include "semantics.h"

#include <sys/sendfile.h>
#include <sys/stat.h>

// --- stdio

static void stdio_near(int s) {
    FILE *file = fdopen(s, "r+");
    char line[100];
    setvbuf(file, NULL, _IOLBF, 1000);
    for (int i = 0; i < 5; i++) {
        fprintf(file, "line %d of five\n", i);
        fflush(file);
        fseek(file, 0, SEEK_CUR);
        say("%s", fgets(line, sizeof line, file) ? strtok(line, "\n") : "nothing");
        fseek(file, 0, SEEK_CUR);
    }
    fputs("abc", file);
    fputc('\n', file);
    fflush(file);
    for (int i = 0; i < 3; i++)
        say("character %c", getc(file));
    ungetc('u', file);
    say("character %c", fgetc(file));
    meet();
    SHOW(fclose(file));
}

static void stdio_far(int s) {
    FILE *in = fdopen(s, "r"), *out = fdopen(MUST(dup(s)), "w");
    char *line = NULL;
    size_t size = 0;
    ssize_t length;
    while ((length = getline(&line, &size, in)) > 0) {
        say("%zd characters", length);
        if (fwrite(line, 1, length, out) != (size_t)length || fflush(out))
            die("fwrite");
        if (length == 4)
            break;
    }
    meet();
    // Three of the four that went back were read; the last is lost with the stream that had read ahead.
    say("end: %d, error: %d", fgetc(in), !!ferror(in));
    free(line);
    fclose(in);
    fclose(out);
}

// Larger than any buffer of stdio.
static void stdio_large_near(int s) {
    enum { TOTAL = 1 << 20 };
    FILE *file = fdopen(s, "w");
    char *bytes = malloc(TOTAL);
    pattern(bytes, TOTAL, 0, 1);
    for (size_t at = 0, size = 1; at < TOTAL; at += size, size = size % 5000 + 7)
        if (fwrite(bytes + at, 1, at + size > TOTAL ? TOTAL - at : size, file) == 0)
            die("fwrite");
    SHOW(fclose(file));
}

static void stdio_large_far(int s) {
    FILE *file = fdopen(s, "r");
    char bytes[3000];
    size_t total = 0, got;
    while ((got = fread(bytes, 1, sizeof bytes, file)) > 0) {
        if (pattern_holds(bytes, got, total, 1) != got)
            die("wrong bytes after %zu", total);
        total += got;
    }
    say("read %zu, end %d, error %d", total, feof(file), ferror(file));
}

static void dprintf_near(int s) {
    say("dprintf: %d", dprintf(s, "%s %d %5.2f|", "formatted", 42, 3.14159));
    struct stat status;
    SHOW(fstat(s, &status));
    say("is a socket: %d, isatty: %d", S_ISSOCK(status.st_mode), isatty(s));
    talk(s);
}

static void dprintf_far(int s) {
    char bytes[100];
    wait_bytes(s, 19);
    say_bytes("received", bytes, read(s, bytes, sizeof bytes));
    talk(s);
}

// --- sendfile

static int pattern_file(size_t length, uint64_t seed) {
    int file = fileno(tmpfile());
    char *bytes = malloc(length);
    pattern(bytes, length, 0, seed);
    if (write(file, bytes, length) != (ssize_t)length)
        die("write a file");
    free(bytes);
    MUST(lseek(file, 0, SEEK_SET));
    return file;
}

static void receive_pattern(int s, size_t offset, size_t length, uint64_t seed) {
    char *bytes = malloc(length);
    receive_exactly(s, bytes, length);
    say("%zu bytes, good to %zu", length, pattern_holds(bytes, length, offset, seed));
    free(bytes);
}

enum { FILE_SIZE = 3000000 };

// sendfile may send less than asked for; the sum is what counts.
static void send_whole_file(int s, int file, off_t from, size_t length) {
    size_t sent = 0;
    while (sent < length) {
        ssize_t got = sendfile(s, file, &from, length - sent);
        if (got <= 0)
            die("sendfile after %zu: %zd %s", sent, got, error_name(errno));
        sent += got;
    }
    say("sent %zu, offset %lld, position %lld", sent, (long long)from, (long long)lseek(file, 0, SEEK_CUR));
}

static void sendfile_near(int s) {
    int file = pattern_file(FILE_SIZE, 2), ends[2];
    off_t offset = 100;
    MUST(pipe(ends));
    SHOW(sendfile(s, file, NULL, 1000));
    SHOW(lseek(file, 0, SEEK_CUR));
    SHOW(sendfile(s, file, &offset, 900));
    say("offset %lld", (long long)offset);
    SHOW(sendfile64(s, file, (off64_t *)&offset, 500));
    SHOW(lseek(file, 0, SEEK_CUR));
    send_whole_file(s, file, 0, FILE_SIZE);
    offset = FILE_SIZE - 10;
    SHOW(sendfile(s, file, &offset, 1000));
    SHOW(sendfile(s, file, &offset, 1000));
    SHOW(sendfile(s, file, NULL, 0));
    offset = -5;
    SHOW(sendfile(s, file, &offset, 10));
    SHOW(sendfile(s, 777, NULL, 10));
    SHOW(sendfile(777, file, NULL, 10));
    SHOW(sendfile(file, s, NULL, 10));
    SHOW(sendfile(s, s, NULL, 10));
    int writing = MUST(open("/dev/null", O_WRONLY));
    SHOW(sendfile(s, writing, NULL, 10));
    talk(s);
}

static void sendfile_far(int s) {
    receive_pattern(s, 0, 1000, 2);
    receive_pattern(s, 100, 900, 2);
    receive_pattern(s, 1000, 500, 2);
    receive_pattern(s, 0, FILE_SIZE, 2);
    receive_pattern(s, FILE_SIZE - 10, 10, 2);
    talk(s);
}

// Headers by send with MSG_MORE, the body by sendfile, as web servers do; not blocking.
static void sendfile_nonblocking_near(int s) {
    int file = pattern_file(FILE_SIZE, 3);
    off_t offset = 0;
    int refusals = 0;
    set_nonblocking(s, true);
    MUST(setsockopt(s, IPPROTO_TCP, TCP_CORK, &(int){1}, sizeof(int)));
    SHOW(send(s, "header", 6, MSG_MORE));
    for (int i = 0; i < 4; i++, offset = 0) {
        while (offset < FILE_SIZE) {
            ssize_t sent = sendfile(s, file, &offset, FILE_SIZE);
            if (sent < 0 && errno == EAGAIN) {
                refusals++;
                await(s, POLLOUT);
            } else if (sent <= 0) {
                die("sendfile at %lld: %zd %s", (long long)offset, sent, error_name(errno));
            }
        }
    }
    MUST(setsockopt(s, IPPROTO_TCP, TCP_CORK, &(int){0}, sizeof(int)));
    say("refused: %d", refusals > 0);
    set_nonblocking(s, false);
    talk(s);
}

static void sendfile_nonblocking_far(int s) {
    char header[6];
    receive_exactly(s, header, 6);
    nap_ms(30);
    for (int i = 0; i < 4; i++)
        receive_pattern(s, 0, FILE_SIZE, 3);
    talk(s);
}

// --- splice

static size_t splice_all(int from, int to, size_t length) {
    size_t moved = 0;
    while (moved < length) {
        ssize_t got = splice(from, NULL, to, NULL, length - moved, SPLICE_F_MOVE);
        if (got <= 0)
            die("splice after %zu: %zd %s", moved, got, error_name(errno));
        moved += got;
    }
    return moved;
}

static void splice_near(int s) {
    int ends[2], file = pattern_file(200000, 4);
    MUST(pipe(ends));
    off64_t offset = 0;
    for (size_t sent = 0; sent < 200000;) {
        ssize_t got = splice(file, &offset, ends[1], NULL, 30000, 0);
        if (got <= 0)
            die("splice of a file");
        sent += splice_all(ends[0], s, got);
    }
    meet();
    SHOW(write(ends[1], "in the pipe", 11));
    SHOW(splice(ends[0], NULL, s, NULL, 100, SPLICE_F_NONBLOCK));
    SHOW(splice(ends[0], NULL, s, NULL, 100, SPLICE_F_NONBLOCK));
    SHOW(splice(s, NULL, s, NULL, 100, 0));
    SHOW(splice(s, &offset, ends[1], NULL, 100, 0));
    SHOW(copy_file_range(file, NULL, s, NULL, 10, 0));
    // And back again.
    meet();
    SHOW(splice(s, NULL, ends[1], NULL, 100, 0));
    char bytes[16];
    say_bytes("came back", bytes, read(ends[0], bytes, 16));
    talk(s);
}

static void splice_far(int s) {
    int ends[2];
    char bytes[30000];
    MUST(pipe(ends));
    for (size_t got = 0; got < 200000;) {
        size_t want = 200000 - got < sizeof bytes ? 200000 - got : sizeof bytes;
        ssize_t moved = splice(s, NULL, ends[1], NULL, want, SPLICE_F_MOVE);
        if (moved <= 0)
            die("splice after %zu: %zd %s", got, moved, error_name(errno));
        receive_exactly(ends[0], bytes, moved);
        if (pattern_holds(bytes, moved, got, 4) != (size_t)moved)
            die("wrong bytes after %zu", got);
        got += moved;
    }
    say("200000 bytes through a pipe");
    set_nonblocking(s, true);
    SHOW(splice(s, NULL, ends[1], NULL, 100, SPLICE_F_NONBLOCK));
    set_nonblocking(s, false);
    meet();
    wait_bytes(s, 11);
    SHOW(splice(s, NULL, ends[1], NULL, 4, 0));
    say_bytes("spliced", bytes, read(ends[0], bytes, 100));
    say_bytes("read", bytes, read(s, bytes, 100));
    SHOW(write(s, "back again", 10));
    meet();
    talk(s);
}

// A proxy that has the kernel move the bytes, to the end of the stream.
static void splice_proxy_near(int s) {
    int port = trade(0), other = connect_to(port);
    static char bytes[100000];
    warm(other, true);
    meet();
    pattern(bytes, sizeof bytes, 0, 5);
    send_all(s, bytes, sizeof bytes);
    SHOW(shutdown(s, SHUT_WR));
    memset(bytes, 0, sizeof bytes);
    receive_exactly(other, bytes, sizeof bytes);
    say("good to %zu", pattern_holds(bytes, sizeof bytes, 0, 5));
    SHOW(read(other, bytes, 1));
    meet();
}

static void splice_proxy_far(int s) {
    int listener = new_listener(5), ends[2];
    trade(port_of(listener));
    int other = MUST(accept(listener, NULL, NULL));
    warm(other, false);
    MUST(pipe(ends));
    meet();
    size_t total = 0;
    ssize_t got;
    while ((got = splice(s, NULL, ends[1], NULL, 1 << 16, 0)) > 0)
        total += splice_all(ends[0], other, got);
    say("moved %zu, then %zd", total, got);
    SHOW(close(other));
    meet();
}

const struct scenario file_scenarios[] = {
    {"stdio", CONNECTED, stdio_near, stdio_far},
    {"stdio-large", CONNECTED, stdio_large_near, stdio_large_far},
    {"dprintf", CONNECTED, dprintf_near, dprintf_far},
    {"sendfile", CONNECTED, sendfile_near, sendfile_far},
    {"sendfile-nonblocking", CONNECTED, sendfile_nonblocking_near, sendfile_nonblocking_far},
    {"splice", CONNECTED, splice_near, splice_far},
    {"splice-proxy", CONNECTED, splice_proxy_near, splice_proxy_far},
    {NULL},
};
