"""The HTTP part of a server, on a free port of this process: without Docker, over stores that a test controls."""

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Set
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import anyio
from anyio import to_thread
from attrs import define, evolve, field

from pyexec.adapters.prometheus import PrometheusMeter
from pyexec.adapters.single_member import NoPeers
from pyexec.domain.events import Finished, Output
from pyexec.domain.output_files import OutputFile, OutputFiles
from pyexec.domain.output_log import OutputLog, Stream
from pyexec.errors import Unavailable
from pyexec.ports import Peers
from pyexec.server import _start_http
from pyexec.services.active_runs import ActiveRuns, Run
from pyexec.services.downloads import Downloads
from pyexec.services.event_log import CorruptLogReporter
from pyexec.services.executions import Executions
from pyexec.services.output_store import OutputMemory, files_blob, output_blob
from pyexec.services.uploads import Upload
from pyexec.settings_parser import read_settings
from pyexec.tenants_file import read_tenants
from pyexec.web.context import Context, ServerState, WebLimits
from tests.events import SPEC, START, claimed, new_id, nonce, running, submitted
from tests.services.world import InlineLog

MEBIBYTE = 1024 * 1024
SIZE = 4 * MEBIBYTE
"""The size of the output file of `ended`."""


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
async def running_web(
    directory: Path,
    submissions: Any = None,
    memory: OutputMemory | None = None,
    peers: Peers | None = None,
    sessions: Any = None,
    upload_bytes_max: int = MEBIBYTE,
    traces: Any = None,
    replica: str = "",
    **settings: str,
) -> AsyncIterator[Web]:
    """Run the HTTP part of a server. `submissions` and `sessions` replace the services that run programs."""
    environment = {"host": "127.0.0.1", "port": "0", "data_dir": str(directory), **settings}
    parsed = read_settings({f"PYEXEC_{name.upper()}": value for name, value in environment.items()})
    log, blobs, active_runs = InlineLog.at(directory), BreakingBlobs(), ActiveRuns()
    executions = Executions(
        log=log,
        blobs=blobs,
        active_runs=active_runs,
        peers=NoPeers(),
        corrupt_logs=CorruptLogReporter(),
        memory=memory or OutputMemory(output_bytes_max=10 * MEBIBYTE),
    )
    context = Context(
        submissions=submissions,
        executions=executions,
        downloads=Downloads(executions, blobs),
        cluster=Mock(),
        peers=peers or NoPeers(),
        checks={},
        warnings=tuple,
        sandbox_reuse=False,
        limits=WebLimits(upload_bytes_max=upload_bytes_max, metadata_bytes_max=MEBIBYTE, idle_seconds=0.5),
        spool_dir=directory,
        sessions=sessions,
        traces=traces,
    )
    state = ServerState(not_ready_reason="", context=context, replica=replica)
    http, url = await _start_http(parsed, read_tenants(parsed), state, PrometheusMeter())
    try:
        yield Web(url, log, blobs, active_runs)
    finally:
        with anyio.CancelScope(shield=True):
            await http.cleanup()
            await log.close()


async def ended(web: Web) -> str:
    """Return an execution that has ended, with output and a file in the blob store."""
    execution = new_id()
    output = OutputLog()
    output.append(Stream.STDOUT, b"hello\n")
    web.blobs.stored[output_blob(execution)] = output.encode()
    web.blobs.stored[files_blob(execution)] = bytes(SIZE)
    finished = Finished(
        at=START,
        nonce=nonce(),
        exit_code=0,
        output=Output(blob=output_blob(execution)),
        files=OutputFiles(
            listed=(OutputFile(path="big.bin", size=SIZE),), truncated=False, blob=files_blob(execution)
        ),
    )
    first = evolve(submitted(), spec=evolve(SPEC, output_files=("*",)))
    await web.log.append(execution, 0, [first, claimed(), running(), finished])
    return execution


async def active(web: Web) -> Run:
    """Return a run of this replica that has printed something."""
    run = Run(new_id())
    run.record([submitted(), claimed(), running()])
    await web.log.append(run.id, 0, list(run.events))
    web.active_runs.add(run)
    run.write_output(Stream.STDOUT, b"hello\n")
    return run


def get(path: str, *headers: str, version: str = "1.1", method: str = "GET") -> Iterator[bytes]:
    lines = [f"{method} {path} HTTP/{version}", "Host: test", "Connection: close", *headers, "", ""]
    yield "\r\n".join(lines).encode()


class Recorded:
    """Replaces `Submissions`: every upload returns the same ended execution."""

    def __init__(self) -> None:
        self.execution = ""
        self.closed = False

    async def run(self, upload: Upload) -> str:
        async for _ in upload.archive:
            pass
        return self.execution
