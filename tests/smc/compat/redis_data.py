"""Fills a redis server with known values, or checks them: redis_data.py load|check PORT KEYS.

Pipelines of 100 commands over one connection; every value follows from its key.
"""

import hashlib
import socket
import sys

BATCH = 100


def key_of(number):
    return b"known:%d" % number


def value_of(number):
    block = hashlib.sha256(key_of(number)).digest()
    length = 1 + int.from_bytes(block[:4], "little") % (20_000 if number % 50 == 0 else 600)
    return (block * (length // len(block) + 1))[:length]


def command(*words):
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def expect(stream, wanted, what):
    got = stream.read(len(wanted))
    if got != wanted:
        sys.exit(f"FAILED: {what}: {got[:60]!r} instead of {wanted[:60]!r} ({len(got)} of {len(wanted)} bytes)")


def main():
    what, port, keys = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with socket.create_connection(("127.0.0.1", port)) as connection, connection.makefile("rb") as stream:
        for first in range(0, keys, BATCH):
            batch = range(first, min(first + BATCH, keys))
            if what == "load":
                connection.sendall(b"".join(command(b"SET", key_of(n), value_of(n)) for n in batch))
                for number in batch:
                    expect(stream, b"+OK\r\n", f"reply to SET {number}")
            else:
                connection.sendall(b"".join(command(b"GET", key_of(n)) for n in batch))
                for number in batch:
                    value = value_of(number)
                    expect(stream, b"$%d\r\n%s\r\n" % (len(value), value), f"value of {number}")


main()
