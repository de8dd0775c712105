"""A Docker engine that can be taken away and given back: a socket in front of the real one's."""

import selectors
import socket
import socketserver
import threading
from pathlib import Path

ENGINE = "/var/run/docker.sock"


class EngineProxy:
    """Listens at `path` from `start` until `stop`, which cuts every connection, too."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._server: _Server | None = None

    def start(self) -> None:
        self._server = _Server(str(self.path), _Connection)
        threading.Thread(target=self._server.serve_forever, name="engine proxy").start()

    def stop(self) -> None:
        if self._server is None:
            return
        self._server.shutdown()
        self._server.server_close()
        self.path.unlink()
        self._server.cut()
        self._server = None


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, path: str, handler: type[socketserver.BaseRequestHandler]) -> None:
        super().__init__(path, handler)
        self.clients: set[socket.socket] = set()

    def cut(self) -> None:
        for client in list(self.clients):
            client.shutdown(socket.SHUT_RDWR)


class _Connection(socketserver.BaseRequestHandler):
    server: _Server

    def handle(self) -> None:
        """Copies both ways until either side is done."""
        self.server.clients.add(self.request)
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
                        key.data.sendall(data)
            except OSError:
                return
            finally:
                self.server.clients.discard(self.request)
