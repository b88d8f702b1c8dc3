"""A web server whose contents follow from their lengths.

http_server.py serve PORT [CERTIFICATE KEY]
    GET /content/LENGTH, GET /chunked/LENGTH; PUT /digest answers with the SHA-256 of what it was given
http_server.py digests LENGTH...
    prints the SHA-256 of each of these contents
"""

import hashlib
import ssl
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def content(length):
    block = hashlib.shake_128(str(length).encode()).digest(65_521)
    whole, rest = divmod(length, len(block))
    for _ in range(whole):
        yield block
    yield block[:rest]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        _, kind, length = self.path.split("/")
        self.send_response(200)
        if kind == "content":
            self.send_header("Content-Length", length)
            self.end_headers()
            for part in content(int(length)):
                self.wfile.write(part)
        else:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for part in content(int(length)):
                if part:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            self.wfile.write(b"0\r\n\r\n")

    def do_PUT(self):
        hasher = hashlib.sha256()
        for part in self.body():
            hasher.update(part)
        answer = hasher.hexdigest().encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            while length := int(self.rfile.readline(), 16):
                yield self.rfile.read(length)
                self.rfile.readline()
            self.rfile.readline()
        else:
            left = int(self.headers["Content-Length"])
            while left:
                part = self.rfile.read(min(left, 1 << 16))
                if not part:
                    raise EOFError(f"{left} bytes of the upload are missing")
                left -= len(part)
                yield part

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 100


def main():
    if sys.argv[1] == "digests":
        for length in sys.argv[2:]:
            print(hashlib.sha256(b"".join(content(int(length)))).hexdigest())
        return
    server = Server(("127.0.0.1", int(sys.argv[2])), Handler)
    if len(sys.argv) > 3:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*sys.argv[3:])
        server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()


main()
