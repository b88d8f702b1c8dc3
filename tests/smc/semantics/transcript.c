// The transcript, and the names in it.
#include "semantics.h"

#include "roles.h"
#include <stdarg.h>

static void write_line(const char *prefix, const char *format, va_list arguments) {
    char line[1024];
    int length = snprintf(line, sizeof line, "%s", prefix);
    int more = vsnprintf(line + length, sizeof line - length - 1, format, arguments);
    length += more < (int)sizeof line - length - 1 ? more : (int)sizeof line - length - 2;
    line[length++] = '\n';
    // One write a line: several threads and processes share the file.
    if (write(TRANSCRIPT_FD, line, length) != length)
        _exit(4);
    if (role.trace) {
        char traced[1100];
        int size = snprintf(traced, sizeof traced, "%8llu %-4s %.*s", (unsigned long long)now_ms() % 100000000,
                            role.is_near ? "near" : "far", length, line);
        if (write(TRACE_FD, traced, size) != size)
            _exit(4);
    }
}

void say(const char *format, ...) {
    int error = errno;
    va_list arguments;
    va_start(arguments, format);
    write_line("", format, arguments);
    va_end(arguments);
    errno = error;
}

void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    write_line("CANNOT GO ON: ", format, arguments);
    va_end(arguments);
    _exit(3);
}

void remark(const char *format, ...) {
    int error = errno;
    va_list arguments;
    va_start(arguments, format);
    write_line("#", format, arguments);
    va_end(arguments);
    errno = error;
}

long show(const char *call, long result) {
    int error = errno;
    if (result == -1)
        say("%s = -1 %s", call, error_name(error));
    else
        say("%s = %ld", call, result);
    errno = error;
    return result;
}

long must(const char *call, long result) {
    if (result == -1)
        die("%s = -1 %s", call, error_name(errno));
    return result;
}

const char *error_name(int error) {
    const char *name = error ? strerrorname_np(error) : "0";
    return name ? name : "unknown";
}

const char *signal_name(int signal) {
    const char *name = sigabbrev_np(signal);
    return name ? name : "unknown";
}

const char *event_names(unsigned events) {
    static const struct {
        unsigned bit;
        const char *name;
    } names[] = {
        {POLLIN, "IN"},         {POLLPRI, "PRI"},       {POLLOUT, "OUT"},      {POLLERR, "ERR"},   {POLLHUP, "HUP"},
        {POLLNVAL, "NVAL"},     {POLLRDNORM, "RDNORM"}, {POLLRDBAND, "RDBAND"}, {POLLWRNORM, "WRNORM"},
        {POLLWRBAND, "WRBAND"}, {POLLMSG, "MSG"},       {POLLRDHUP, "RDHUP"},
    };
    static _Thread_local char text[128];
    size_t used = 0;
    text[0] = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (events & names[i].bit)
            used += snprintf(text + used, sizeof text - used, "%s%s", used ? "|" : "", names[i].name);
        events &= ~names[i].bit;
    }
    if (events)
        used += snprintf(text + used, sizeof text - used, "%s%#x", used ? "|" : "", events);
    return used ? text : "nothing";
}

// FNV-1a.
uint32_t checksum(uint32_t start, const void *bytes, size_t length) {
    const unsigned char *at = bytes;
    for (size_t i = 0; i < length; i++)
        start = (start ^ at[i]) * 16777619u;
    return start;
}

void say_bytes(const char *what, const void *bytes, long length) {
    if (length < 0)
        say("%s: %ld %s", what, length, error_name(errno));
    else
        say("%s: %ld bytes, %08x", what, length, checksum(CHECKSUM_START, bytes, length));
}

static unsigned char pattern_at(uint64_t offset, uint64_t seed) {
    uint64_t word = (offset / 8 + 1) * 0x9e3779b97f4a7c15u + seed * 0xd1342543de82ef95u;
    word ^= word >> 29;
    word *= 0xbf58476d1ce4e5b9u;
    word ^= word >> 32;
    return word >> (8 * (offset % 8));
}

void pattern(void *bytes, size_t length, uint64_t offset, uint64_t seed) {
    unsigned char *at = bytes;
    for (size_t i = 0; i < length; i++)
        at[i] = pattern_at(offset + i, seed);
}

size_t pattern_holds(const void *bytes, size_t length, uint64_t offset, uint64_t seed) {
    const unsigned char *at = bytes;
    for (size_t i = 0; i < length; i++)
        if (at[i] != pattern_at(offset + i, seed))
            return i;
    return length;
}
