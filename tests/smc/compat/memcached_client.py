"""Works on a memcached server and compares every reply: memcached_client.py PORT CONNECTIONS ROUNDS.

One thread a connection, each with keys of its own; and one with 200 connections, by turns.
"""

import random
import socket
import struct
import sys
import threading

failures = []


class Connection:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream = self.socket.makefile("rb")

    def ask(self, request, wanted, what):
        self.socket.sendall(request)
        self.expect(wanted, what)

    def expect(self, wanted, what):
        got = self.stream.read(len(wanted))
        if got != wanted:
            at = next((i for i, (a, b) in enumerate(zip(got, wanted)) if a != b), len(got))
            raise ValueError(f"{what}: {len(got)} of {len(wanted)} bytes, other from byte {at}: {got[at:at + 40]!r}")


def storage(key, value, command=b"set", suffix=b""):
    return b"%s %s 0 0 %d%s\r\n%s\r\n" % (command, key, len(value), suffix, value)


def found(key, value):
    return b"VALUE %s 0 %d\r\n%s\r\n" % (key, len(value), value)


def text_round(connection, rng, prefix):
    values = {b"%s:%d" % (prefix, n): rng.randbytes(rng.choice((0, 1, 30, 100, 1000, 5000))) for n in range(40)}
    for key, value in values.items():
        connection.ask(storage(key, value), b"STORED\r\n", f"set {key}")
    for key, value in values.items():
        connection.ask(b"get %s\r\n" % key, found(key, value) + b"END\r\n", f"get {key}")
    # Everything again in one request without replies, appended to, and read in one.
    connection.socket.sendall(b"".join(storage(key, b"+", b"append", b" noreply") for key in values))
    wanted = b"".join(found(key, value + b"+") for key, value in values.items()) + b"END\r\n"
    connection.ask(b"get " + b" ".join(values) + b"\r\n", wanted, "get of all")
    connection.ask(storage(prefix, b"41"), b"STORED\r\n", "set a number")
    connection.ask(b"incr %s 1\r\n" % prefix, b"42\r\n", "incr")
    connection.ask(b"delete %s\r\n" % prefix, b"DELETED\r\n", "delete")
    connection.ask(b"get %s\r\n" % prefix, b"END\r\n", "get of what was deleted")


def large_round(connection, rng, prefix):
    value = rng.randbytes(1_000_000 + rng.randrange(1_000_000))
    connection.ask(storage(prefix + b":large", value), b"STORED\r\n", "set a large value")
    connection.ask(b"get %s:large\r\n" % prefix, found(prefix + b":large", value) + b"END\r\n", "get a large value")


def binary_round(port, rng, prefix):
    """The binary protocol, which a connection speaks from its first byte on."""
    connection = Connection(port)
    for number in range(50):
        key, value = b"%s:binary:%d" % (prefix, number), rng.randbytes(700)
        opaque = rng.randrange(1 << 32)
        header = struct.pack(">BBHBBHIIQ", 0x80, 0x01, len(key), 8, 0, 0, 8 + len(key) + len(value), opaque, 0)
        connection.socket.sendall(header + bytes(8) + key + value)
        check_binary(connection, 0x01, opaque, b"")
        header = struct.pack(">BBHBBHIIQ", 0x80, 0x00, len(key), 0, 0, 0, len(key), opaque, 0)
        connection.socket.sendall(header + key)
        check_binary(connection, 0x00, opaque, bytes(4) + value)
    connection.socket.close()


def check_binary(connection, opcode, opaque, wanted):
    reply = connection.stream.read(24)
    magic, code, _, _, _, status, length, echoed, _ = struct.unpack(">BBHBBHIIQ", reply)
    if (magic, code, status, length, echoed) != (0x81, opcode, 0, len(wanted), opaque):
        raise ValueError(f"binary reply {reply!r}")
    connection.expect(wanted, "binary value")


def worker(port, index, rounds):
    rng, prefix = random.Random(index), b"own%d" % index
    connection = Connection(port)
    for _ in range(rounds):
        text_round(connection, rng, prefix)
    large_round(connection, rng, prefix)
    binary_round(port, rng, prefix)
    connection.socket.close()


def crowd(port, rounds):
    connections = [Connection(port) for _ in range(200)]
    for turn in range(rounds * 10):
        for index, connection in enumerate(connections):
            connection.socket.sendall(storage(b"crowd:%d" % index, b"%d in turn %d" % (index, turn)))
        for connection in connections:
            connection.expect(b"STORED\r\n", "set in a crowd")
        for index, connection in enumerate(connections):
            value = b"%d in turn %d" % (index, turn)
            connection.ask(b"get crowd:%d\r\n" % index, found(b"crowd:%d" % index, value) + b"END\r\n", "get in a crowd")


def guarded(work, *arguments):
    try:
        work(*arguments)
    except Exception as error:  # whatever it is, it is a failure of the run
        failures.append(f"{work.__name__}{arguments}: {type(error).__name__}: {error}")


def main():
    port, connections, rounds = (int(argument) for argument in sys.argv[1:])
    threads = [threading.Thread(target=guarded, args=(worker, port, n, rounds)) for n in range(connections)]
    threads.append(threading.Thread(target=guarded, args=(crowd, port, rounds)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        sys.exit("FAILED: " + "; ".join(failures))


main()
