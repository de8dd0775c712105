"""An HTTP server with predefined responses, for responses that the real server does not give."""

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEPT = 1_000_000


class Request(BaseHTTPRequestHandler):
    """One request. `body` reads its body, `say` sends a response."""

    protocol_version = "HTTP/1.1"
    answer: Callable[["Request"], None]

    def body(self) -> tuple[bytes, int]:
        """Read the whole body; return its first bytes and its length."""
        start, total = b"", 0
        while size := int(self.rfile.readline().strip(), 16):
            total += size
            while size:
                piece = self.rfile.read(min(size, KEPT))
                size -= len(piece)
                start += piece[: KEPT - len(start)]
            self.rfile.readline()
        self.rfile.readline()
        return start, total

    def say(self, kind: str, content: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def say_events(self, *events: tuple[str, dict]) -> None:
        """Send an event stream."""
        lines = [
            f"id: {number}.0\nevent: {name}\ndata: {json.dumps(data)}\n\n"
            for number, (name, data) in enumerate(events, 1)
        ]
        self.say("text/event-stream", "".join(lines).encode())

    def do_GET(self) -> None:
        type(self).answer(self)

    do_POST = do_DELETE = do_GET

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextmanager
def canned(answer: Callable[[Request], None], tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Run a server; yield its URL. `answer` is called with each request, in a separate thread."""
    handler = type("Canned", (Request,), {"answer": staticmethod(answer)})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            scheme = "http" if tls is None else "https"
            yield f"{scheme}://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
