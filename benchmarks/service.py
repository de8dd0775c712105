"""The service as a client meets it: a server of its own, and one kept-alive HTTP connection to it."""

import io
import itertools
import json
import socket
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

from benchmarks.bare import HELLO
from benchmarks.samples import timed
from tests.support.server import Server, running_server

POOL_SIZE = 4
READY_SECONDS = 0.3
"""From a sandbox's start, which Docker tells, to its supervisor being ready, which nobody tells; and what Docker
has to do after a removal."""
FULL_SECONDS = 60.0
UPLOAD_BLOCK_BYTES = 1024 * 1024
BOUNDARY = "----------------------------pyexec-bench"
HEADERS = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


class PoolWatch:
    """Follows the server's containers through Docker's own events, to know when nothing goes on any more."""

    def __init__(self, events: Iterable[str]) -> None:
        self._changed = threading.Condition()
        self._there = 0
        self._destroyed = 0
        self._last = time.monotonic()
        threading.Thread(target=self._read, args=(events,), name="pool watch", daemon=True).start()

    def _read(self, events: Iterable[str]) -> None:
        for line in events:
            with self._changed:
                started = line.strip() == "start"
                self._there += 1 if started else -1
                self._destroyed += not started
                self._last = time.monotonic()
                self._changed.notify_all()

    def wait(self, *, waiting: int, destroyed: int) -> None:
        """Returns once so many are there, at least so many are gone, and nothing has happened for a while."""
        deadline = time.monotonic() + FULL_SECONDS
        with self._changed:
            while True:
                now = time.monotonic()
                done = self._there == waiting and self._destroyed >= destroyed
                quiet = self._last + READY_SECONDS - now
                if done and quiet <= 0:
                    return
                if now > deadline:
                    raise RuntimeError(
                        f"the pool did not fill: {self._there} of {waiting} sandboxes are there, "
                        f"{self._destroyed} of {destroyed} are gone"
                    )
                self._changed.wait(quiet if done else deadline - now)


class Service:
    """A running server, one connection to it, and how many runs it was asked for."""

    def __init__(self, server: Server, pool: PoolWatch, pool_size: int) -> None:
        self.server = server
        self.pool_size = pool_size
        self._pool = pool
        self._runs = 0
        where = urlsplit(server.url)
        self._connection = HTTPConnection(where.hostname or "", where.port, blocksize=UPLOAD_BLOCK_BYTES)
        self._connection.connect()
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        """Lets go of the connection."""
        self._connection.close()

    @contextmanager
    def others(self, count: int) -> Iterator[Sequence["Service"]]:
        """The same server by so many more connections."""
        with ExitStack() as stack:
            yield [
                stack.enter_context(closing(Service(self.server, self._pool, self.pool_size)))
                for _ in range(count)
            ]

    def settle(self) -> None:
        """Returns when nothing goes on: the pool is full, and every used sandbox is gone."""
        self._pool.wait(waiting=self.pool_size, destroyed=self._runs)

    def count_run(self) -> None:
        """For a run that is asked for elsewhere: `settle` waits for its sandbox, too."""
        self._runs += 1

    def execute(self, metadata: bytes, archive: bytes | Path) -> tuple[float, Any]:
        """POST exec/sync: seconds from the first byte sent to the last received, and the Result."""
        head, tail = body_around(metadata)
        size = len(archive) if isinstance(archive, bytes) else archive.stat().st_size
        body = head + archive + tail if isinstance(archive, bytes) else _body(head, archive, tail)
        headers = {**HEADERS, "Content-Length": str(len(head) + size + len(tail))}
        return self.call("/api/v1/exec/sync", body, headers)

    def execute_later(self, metadata: bytes, archive: bytes) -> tuple[float, Any]:
        """POST exec/async and then one long poll: seconds from the first byte sent to the Result."""
        head, tail = body_around(metadata)
        with timed() as watch:
            _, accepted = self.call("/api/v1/exec/async", head + archive + tail, HEADERS, status=202)
            self._connection.request("GET", f"/api/v1/executions/{accepted['execution_id']}?wait=60")
            result = json.loads(self._connection.getresponse().read())
        return watch.seconds, result

    def call(
        self, path: str, body: bytes | Iterator[bytes], headers: Mapping[str, str], status: int = 200
    ) -> tuple[float, Any]:
        """One request that makes a run: seconds from the first byte sent to the last received, and the answer."""
        self.count_run()
        with timed() as watch:
            self._connection.request("POST", path, body=body, headers=dict(headers))
            answer = self._connection.getresponse()
            text = answer.read()
        if answer.status != status:
            raise RuntimeError(f"the server answered {answer.status}: {text.decode()}")
        return watch.seconds, json.loads(text)


@contextmanager
def running_service(image: str, **settings: str) -> Iterator[Service]:
    """A server with a pool of its own and these settings, stopped at the end."""
    with tempfile.TemporaryDirectory(prefix="pyexec-bench-") as directory:
        since = str(time.time())
        data_dir = Path(directory) / "data"
        with (
            running_server(data_dir, image, **{"warm_pool": str(POOL_SIZE), **settings}) as server,
            _docker_events(
                _deployment(data_dir, settings.get("consul_addr")), since, settings.get("docker_host")
            ) as events,
        ):
            service = Service(server, PoolWatch(events), int(settings.get("warm_pool", POOL_SIZE)))
            try:
                service.settle()
                yield service
            finally:
                service.close()


class WarmSync:
    """One run while nothing else goes on and a sandbox waits."""

    name = "warm sync"
    metadata = b"{}"

    def __init__(self, service: Service) -> None:
        self._service = service
        self._archive = tar_of("main.py", HELLO)

    def run(self) -> float:
        self._service.settle()
        return self.run_now()

    def run_now(self) -> float:
        """Without waiting for anything."""
        return self._right(self._service.execute(self.metadata, self._archive))

    def _right(self, timed_result: tuple[float, Any]) -> float:
        seconds, result = timed_result
        if result.get("stdout") != "hello\n" or result["status"] != "completed":
            raise RuntimeError(f"the run did not print hello: {result}")
        return seconds


class ConsulWarmSync(WarmSync):
    """The same on a server whose log is in Consul."""

    name = "warm sync, Consul"


class BackToBackSync(WarmSync):
    """One run after the other, the next at once: refilling the pool goes on meanwhile."""

    name = "back-to-back sync"

    def run(self) -> float:
        return self.run_now()


class ColdSync(WarmSync):
    """One run with limits that nobody has asked for before."""

    name = "cold sync"

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self._sizes = itertools.count(512)

    def run_now(self) -> float:
        self.metadata = json.dumps({"config": {"memory_mb": next(self._sizes)}}).encode()
        return super().run_now()


class Eval(WarmSync):
    """The same program by the simple API."""

    name = "eval"

    def run_now(self) -> float:
        body = json.dumps({"code": HELLO.decode()}).encode()
        return self._right(self._service.call("/api/v1/eval", body, {"Content-Type": "application/json"}))


class AsyncResult(WarmSync):
    """Submitted, and its end awaited by one long poll."""

    name = "async, to its result"

    def run_now(self) -> float:
        return self._right(self._service.execute_later(self.metadata, self._archive))


class Burst(WarmSync):
    """As many at once as the pool holds: the time until the last is answered."""

    name = f"burst of {POOL_SIZE}"

    def __init__(self, services: Sequence[Service]) -> None:
        super().__init__(services[0])
        self._callers = [WarmSync(service) for service in services]

    def run_now(self) -> float:
        with timed() as watch, ThreadPoolExecutor(len(self._callers)) as threads:
            for answered in [threads.submit(caller.run_now) for caller in self._callers]:
                answered.result()
        return watch.seconds


def _deployment(data_dir: Path, consul: str | None) -> str:
    """The label of a server's containers."""
    if consul is None:
        return (data_dir / "deployment").read_text().strip()
    with urlopen(f"http://{consul}/v1/kv/pyexec/deployment?raw") as answer:
        return str(answer.read(), "ascii")


def tar_of(name: str, content: bytes) -> bytes:
    """A tar with one file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def body_around(metadata: bytes) -> tuple[bytes, bytes]:
    """The multipart body before and after the archive."""
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="metadata"\r\n'
        f"Content-Type: application/json\r\n\r\n{metadata.decode()}\r\n"
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="tar"; filename="archive.tar"\r\n'
        f"Content-Type: application/x-tar\r\n\r\n"
    )
    return head.encode(), f"\r\n--{BOUNDARY}--\r\n".encode()


def _body(head: bytes, archive: Path, tail: bytes) -> Iterator[bytes]:
    yield head
    with archive.open("rb") as file:
        while block := file.read(UPLOAD_BLOCK_BYTES):
            yield block
    yield tail


@contextmanager
def _docker_events(deployment: str, since: str, engine: str | None) -> Iterator[Iterable[str]]:
    """`start` and `destroy` of every container of the deployment, a line each, from that moment on."""
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
