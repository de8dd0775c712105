"""A server under test and a client with one kept-alive HTTP connection to it."""

import io
import json
import socket
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

from benchmarks.timing import timed
from tests.support.server import Server, running_server

POOL_SIZE = 4
QUIET_SECONDS = 0.3
"""The pool is idle after this time without an answer or a container event. Docker does not report when a supervisor is
ready or a used sandbox clean, and it still has work to do after it has reported a removal."""
IDLE_TIMEOUT_SECONDS = 60.0
UPLOAD_BLOCK_BYTES = 1024 * 1024
BOUNDARY = "----------------------------pyexec-bench"
HEADERS = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


class PoolMonitor:
    """Follows the server's containers through Docker's event stream."""

    def __init__(self, events: Iterable[str]) -> None:
        self._changed = threading.Condition()
        self._present = 0
        self._active_at = time.monotonic()
        threading.Thread(target=self._read, args=(events,), name="pool monitor", daemon=True).start()

    def _read(self, events: Iterable[str]) -> None:
        for line in events:
            with self._changed:
                self._present += 1 if line.strip() == "start" else -1
                self._active_at = time.monotonic()
                self._changed.notify_all()

    def record_activity(self) -> None:
        """Restart the wait for a moment without activity."""
        with self._changed:
            self._active_at = time.monotonic()

    def wait_until_idle(self, *, pool_size: int) -> None:
        """Wait until exactly the sandboxes of the pool are present, and nothing has happened for a moment."""
        deadline = time.monotonic() + IDLE_TIMEOUT_SECONDS
        with self._changed:
            while True:
                now = time.monotonic()
                done = self._present == pool_size
                quiet_in = self._active_at + QUIET_SECONDS - now
                if done and quiet_in <= 0:
                    return
                if now > deadline:
                    raise RuntimeError(
                        f"timed out waiting for the pool: {self._present} of {pool_size} sandboxes are present"
                    )
                self._changed.wait(quiet_in if done else deadline - now)


class Service:
    """A running server, and one connection to it."""

    def __init__(self, server: Server, pool: PoolMonitor, pool_size: int) -> None:
        self.server = server
        self.pool_size = pool_size
        self._pool = pool
        url = urlsplit(server.url)
        self._connection = HTTPConnection(url.hostname or "", url.port, blocksize=UPLOAD_BLOCK_BYTES)
        self._connection.connect()
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        """Close the connection; the server keeps running."""
        self._connection.close()

    @contextmanager
    def more_connections(self, count: int) -> Iterator[Sequence["Service"]]:
        """Open `count` more connections to the same server."""
        with ExitStack() as stack:
            yield [
                stack.enter_context(closing(Service(self.server, self._pool, self.pool_size)))
                for _ in range(count)
            ]

    def wait_until_idle(self, *, sessions: int = 0) -> None:
        """Wait until the pool is full, and every used sandbox is clean or removed, except those of open `sessions`."""
        self._pool.wait_until_idle(pool_size=self.pool_size + sessions)

    def record_activity(self) -> None:
        """Count a run that has ended elsewhere as activity, so that `wait_until_idle` waits for its sandbox, too."""
        self._pool.record_activity()

    def execute(self, metadata: bytes, archive: bytes | Path) -> tuple[float, Any]:
        """POST to exec/sync; return the seconds from the first byte sent to the last received, and the Result."""
        head, tail = multipart_around(metadata)
        size = len(archive) if isinstance(archive, bytes) else archive.stat().st_size
        body = head + archive + tail if isinstance(archive, bytes) else _stream(head, archive, tail)
        headers = {**HEADERS, "Content-Length": str(len(head) + size + len(tail))}
        return self.post("/api/v1/exec/sync", body, headers)

    def execute_async(self, metadata: bytes, archive: bytes) -> tuple[float, Any]:
        """POST to exec/async, then long-poll once; return the seconds from the first byte sent, and the Result."""
        head, tail = multipart_around(metadata)
        with timed() as watch:
            _, accepted = self.post("/api/v1/exec/async", head + archive + tail, HEADERS, status=202)
            self._connection.request("GET", f"/api/v1/executions/{accepted['execution_id']}?wait=60")
            result = json.loads(self._connection.getresponse().read())
        self.record_activity()
        return watch.seconds, result

    def post(
        self, path: str, body: bytes | Iterator[bytes], headers: Mapping[str, str], status: int = 200
    ) -> tuple[float, Any]:
        """Send a request that starts a run; return the seconds to the last byte received, and the JSON."""
        with timed() as watch:
            text = self.request("POST", path, body, headers, status=status)
        return watch.seconds, json.loads(text)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        status: int = 200,
    ) -> bytes:
        """Send a request; return the body of the response."""
        self._connection.request(method, path, body=body, headers=dict(headers or {}))
        response = self._connection.getresponse()
        data = response.read()
        self.record_activity()
        if response.status != status:
            raise RuntimeError(f"the server returned {response.status}: {data.decode('utf-8', 'replace')}")
        return data


@contextmanager
def running_service(image: str, **settings: str) -> Iterator[Service]:
    """Start a server with a full pool and these settings; stop it at the end."""
    with tempfile.TemporaryDirectory(prefix="pyexec-bench-") as directory:
        since = str(time.time())
        data_dir = Path(directory) / "data"
        with (
            running_server(data_dir, image, **{"warm_pool": str(POOL_SIZE), **settings}) as server,
            _docker_events(
                _deployment(data_dir, settings.get("consul_addr")), since, settings.get("docker_host")
            ) as events,
        ):
            service = Service(server, PoolMonitor(events), int(settings.get("warm_pool", POOL_SIZE)))
            try:
                service.wait_until_idle()
                yield service
            finally:
                service.close()


def _deployment(data_dir: Path, consul: str | None) -> str:
    """Return the deployment's name, which labels the server's containers."""
    if consul is None:
        return (data_dir / "deployment").read_text().strip()
    with urlopen(f"http://{consul}/v1/kv/pyexec/deployment?raw") as response:
        return str(response.read(), "ascii")


def tar_of(name: str, content: bytes) -> bytes:
    """Return a tar with one file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def multipart_around(metadata: bytes) -> tuple[bytes, bytes]:
    """Return the parts of the multipart body before and after the archive."""
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="metadata"\r\n'
        f"Content-Type: application/json\r\n\r\n{metadata.decode()}\r\n"
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="tar"; filename="archive.tar"\r\n'
        f"Content-Type: application/x-tar\r\n\r\n"
    )
    return head.encode(), f"\r\n--{BOUNDARY}--\r\n".encode()


def _stream(head: bytes, archive: Path, tail: bytes) -> Iterator[bytes]:
    yield head
    with archive.open("rb") as file:
        while block := file.read(UPLOAD_BLOCK_BYTES):
            yield block
    yield tail


@contextmanager
def _docker_events(deployment: str, since: str, engine: str | None) -> Iterator[Iterable[str]]:
    """Yield one line, `start` or `destroy`, per event of the deployment's containers after the time `since`."""
    command = ["docker", *(["--host", engine] if engine else [])]
    command += ["events", "--since", since, "--filter", f"label=pyexec.deployment={deployment}"]
    command += ["--filter", "event=start", "--filter", "event=destroy", "--format", "{{.Action}}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as events:
        try:
            if events.stdout is None:
                raise RuntimeError("docker events has no output")
            yield events.stdout
        finally:
            events.terminate()
