"""A proxy in front of the Docker socket. It can be stopped and restarted, stop answering, or change requests."""

import json
import re
import selectors
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ENGINE = "/var/run/docker.sock"


class EngineProxy:
    """Listens at `path` from `start` until `stop`, which also closes all connections. While it is `silent`, it accepts
    requests and forwards nothing. `rewrite` changes the body of every request that creates a container."""

    def __init__(self, path: Path, rewrite: Callable[[Any], None] | None = None) -> None:
        self.path = path
        self._rewrite = rewrite
        self._server: _Server | None = None
        self._speaking = threading.Event()
        self._speaking.set()

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Behave like an engine that hangs, inside the block."""
        self._speaking.clear()
        try:
            yield
        finally:
            self._speaking.set()

    def start(self) -> None:
        self._server = _Server(str(self.path), _Connection)
        self._server.rewrite, self._server.speaking = self._rewrite, self._speaking
        threading.Thread(target=self._server.serve_forever, name="engine proxy").start()

    def stop(self) -> None:
        if self._server is None:
            return
        server, self._server = self._server, None
        server.shutdown()
        server.server_close()
        self.path.unlink()
        server.cut()


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    rewrite: Callable[[Any], None] | None = None
    speaking: threading.Event

    def __init__(self, path: str, handler: type[socketserver.BaseRequestHandler]) -> None:
        super().__init__(path, handler)
        self.clients: set[socket.socket] = set()

    def cut(self) -> None:
        for client in list(self.clients):
            with suppress(OSError):  # the client may have disconnected
                client.shutdown(socket.SHUT_RDWR)


class _Connection(socketserver.BaseRequestHandler):
    server: _Server

    def handle(self) -> None:
        """Copy data in both directions until one side closes its connection."""
        self.server.clients.add(self.request)
        rewritten = _Rewritten(self.server.rewrite)
        with socket.socket(socket.AF_UNIX) as engine, selectors.DefaultSelector() as ready:
            engine.connect(ENGINE)
            ready.register(self.request, selectors.EVENT_READ, engine)
            ready.register(engine, selectors.EVENT_READ, self.request)
            try:
                while True:
                    for key, _ in ready.select():
                        source: socket.socket = key.fileobj  # type: ignore[assignment]
                        data = source.recv(65536)
                        if not data:
                            return
                        self.server.speaking.wait()
                        key.data.sendall(rewritten.feed(data) if source is self.request else data)
            except OSError:
                return
            finally:
                self.server.clients.discard(self.request)


class _Rewritten:
    """Rewrites the requests of one client. A client sends a request only after the response to the last one."""

    _CREATE = re.compile(rb"POST \S*/containers/create\b")
    _LENGTH = re.compile(rb"(?i)(\r\nContent-Length: *)(\d+)")

    def __init__(self, rewrite: Callable[[Any], None] | None) -> None:
        self._rewrite = rewrite
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """Add data from the client; return the data to forward now."""
        if self._rewrite is None or not (self._held or self._CREATE.match(data)):
            return data
        self._held += data
        head, _, body = self._held.partition(b"\r\n\r\n")
        length = self._LENGTH.search(head)
        if length is None or len(body) < int(length[2]):
            return b""
        self._held = b""
        document = json.loads(body)
        if "pyexec-etc" not in document["Labels"]:  # the helper container is never started
            self._rewrite(document)
        body = json.dumps(document).encode()
        return self._LENGTH.sub(b"\\g<1>%d" % len(body), head) + b"\r\n\r\n" + body
