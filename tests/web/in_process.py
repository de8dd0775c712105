"""The HTTP part of a server, on a free port of this process: without Docker, over stores that a test controls."""

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Set
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from anyio import to_thread
from attrs import define, field

from pyexec.adapters.prometheus import PrometheusMeter
from pyexec.adapters.single_member import NoPeers
from pyexec.errors import Unavailable
from pyexec.server import _start_http
from pyexec.services.active_runs import ActiveRuns
from pyexec.services.downloads import Downloads
from pyexec.services.event_log import CorruptLogReporter
from pyexec.services.executions import Executions
from pyexec.settings_parser import read_settings
from pyexec.web.context import Context, ServerState, WebLimits
from tests.services.world import InlineLog

MEBIBYTE = 1024 * 1024


@define
class BreakingBlobs:
    """Blobs in memory. A read fails after `breaks_after` bytes."""

    stored: dict[str, bytes] = field(factory=dict)
    breaks_after: int | None = None
    bytes_max: int | None = None

    async def put(self, name: str, chunks: AsyncIterator[bytes]) -> None:
        self.stored[name] = b"".join([chunk async for chunk in chunks])

    async def read(self, name: str) -> AsyncIterator[bytes]:
        data, at = self.stored[name], 0
        while at < len(data):
            if self.breaks_after is not None and at >= self.breaks_after:
                raise Unavailable("the blob store is gone")
            yield data[at : at + 65536]
            at += 65536

    async def delete(self, name: str) -> None:
        self.stored.pop(name, None)

    async def sweep(self, alive: Set[str], exists: Callable[[str], Awaitable[bool]]) -> None:
        raise NotImplementedError


@define
class Web:
    """A listening server, and what its handlers read."""

    url: str
    log: InlineLog
    blobs: BreakingBlobs
    active_runs: ActiveRuns

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        return host, int(port)

    async def exchange(self, pieces: Iterator[bytes]) -> bytes:
        """Send everything first, as simple clients do, then read the answer up to the end of the connection."""
        return await to_thread.run_sync(self._exchange, pieces)

    def _exchange(self, pieces: Iterator[bytes]) -> bytes:
        answer = b""
        with socket.create_connection(self.address, timeout=60) as connection:
            for piece in pieces:
                connection.sendall(piece)
            while chunk := connection.recv(65536):
                answer += chunk
        return answer


@asynccontextmanager
async def running_web(directory: Path, submissions: Any = None, **settings: str) -> AsyncIterator[Web]:
    """Serve. `submissions` stands for what would run programs."""
    environment = {"host": "127.0.0.1", "port": "0", "data_dir": str(directory), **settings}
    parsed = read_settings({f"PYEXEC_{name.upper()}": value for name, value in environment.items()})
    log, blobs, active_runs = InlineLog.at(directory), BreakingBlobs(), ActiveRuns()
    executions = Executions(
        log=log, blobs=blobs, active_runs=active_runs, peers=NoPeers(), corrupt_logs=CorruptLogReporter()
    )
    context = Context(
        submissions=submissions,
        executions=executions,
        downloads=Downloads(executions, blobs),
        checks={},
        warnings=tuple,
        limits=WebLimits(upload_bytes_max=MEBIBYTE, metadata_bytes_max=MEBIBYTE, idle_seconds=0.5),
        spool_dir=directory,
    )
    state = ServerState(not_ready_reason="", context=context)
    http, url = await _start_http(parsed, state, PrometheusMeter())
    try:
        yield Web(url, log, blobs, active_runs)
    finally:
        with anyio.CancelScope(shield=True):
            await http.cleanup()
            await log.close()
