"""Fetches files over connections that are kept alive and compares every byte:
http_load.py PORT SECONDS PATH=FILE... Four threads, a connection each.

A server may close an idle connection at any time: when it does so before the first byte of an answer, the request is sent
once more over a new connection. Anything else that goes wrong fails.
"""

import http.client
import sys
import threading
import time

THREADS = 4

failures = []
counts = [0] * THREADS
again = [0] * THREADS


def fetch(connection, path):
    connection.request("GET", "/" + path)
    answer = connection.getresponse()
    return answer.status, answer.read()


def worker(index, port, until, files):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    turn = index
    while time.monotonic() < until and not failures:
        path, wanted = files[turn % len(files)]
        turn += 1
        try:
            status, body = fetch(connection, path)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            connection.close()
            again[index] += 1
            status, body = fetch(connection, path)
        if status != 200 or body != wanted:
            failures.append(f"/{path}: status {status}, {len(body)} bytes of {len(wanted)}, or other ones")
        counts[index] += 1


def guarded(*arguments):
    try:
        worker(*arguments)
    except Exception as error:  # whatever it is, it is a failure of the run
        failures.append(f"{type(error).__name__}: {error}")


def main():
    port, seconds = int(sys.argv[1]), float(sys.argv[2])
    files = []
    for pair in sys.argv[3:]:
        path, file = pair.split("=")
        with open(file, "rb") as contents:
            files.append((path, contents.read()))
    until = time.monotonic() + seconds
    threads = [threading.Thread(target=guarded, args=(index, port, until, files)) for index in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"{sum(counts)} answers, {sum(again)} requests sent again")
    if failures or not sum(counts):
        sys.exit("FAILED: " + "; ".join(failures or ["no answer at all"]))


main()
