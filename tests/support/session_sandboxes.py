"""Sandboxes of interpreter sessions, without a server."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from attrs import define, evolve, field

from pyexec.adapters.docker.config import SecurityOptions
from pyexec.adapters.docker.engine import DockerEngine
from pyexec.domain.crash import Crash
from pyexec.domain.seccomp.profile import docker_profile
from pyexec.domain.spec import MEBIBYTE
from pyexec.guest.wire import LEASE_SECONDS
from pyexec.ports import ContainerSpec
from pyexec.sandbox.guest_source import session_command
from pyexec.sandbox.protocol import OutputChunk, ReportChunk
from pyexec.sandbox.reports import ReportReader
from pyexec.sandbox.sandbox import Sandbox
from pyexec.sandbox.session_protocol import CellEnded, CellStart, SessionPlan
from pyexec.sandbox.session_sandbox import SessionSandbox

MEMORY_BYTES, DISK_BYTES, OUTPUT_BYTES = 192 * MEBIBYTE, 32 * MEBIBYTE, 256 * 1024


def session_spec(image: str) -> ContainerSpec:
    return ContainerSpec(
        image=image,
        command=session_command(prestart=True),
        labels={"pyexec-test": "session"},
        memory_bytes=MEMORY_BYTES + 4 * DISK_BYTES,
        disk_bytes=DISK_BYTES,
        shm_bytes=MEMORY_BYTES,
        pids_max=64,
        cpu_shares=1024,
        cpus=None,
        log_bytes=MEBIBYTE,
        network=None,
        attachable=True,
    )


@asynccontextmanager
async def connected_engine() -> AsyncIterator[DockerEngine]:
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    first = 10**8 + secrets.randbelow(10**8)
    security = SecurityOptions(sandbox_profile=docker_profile(for_setup=False))
    engine = await DockerEngine.connect(host, security, range(first, first + 100), 60.0)
    try:
        yield engine
    finally:
        await engine.close()


@define
class CellResult:
    """The output, the reports and the end of a cell."""

    stdout: str = ""
    stderr: str = ""
    displays: list[bytes] = field(factory=list)
    result: str | None = None
    crash: Crash | None = None
    end: CellEnded | None = None

    @property
    def summary(self) -> tuple[str, int, bool]:
        assert self.end is not None
        return self.end.reason, self.end.exit_code, self.end.interpreter_restarted


@define
class Client:
    """Runs cells in a session."""

    sandbox: SessionSandbox

    async def run(self, code: str, seconds: float = 30.0, *, resume: str = "") -> CellResult:
        """Run a cell, or read the one with the nonce `resume`, and acknowledge its end."""
        cell = CellStart(
            nonce=resume or secrets.token_hex(8), code=code, timeout=seconds,
            output_bytes=OUTPUT_BYTES, display_bytes=MEBIBYTE, resume=bool(resume),
        )  # fmt: skip
        reader, found = ReportReader(MEBIBYTE), CellResult()
        output = {"stdout": bytearray(), "stderr": bytearray()}
        async for frame in self.sandbox.run_cell(cell):
            if isinstance(frame, OutputChunk):
                output[frame.stream.value] += frame.data
            elif isinstance(frame, ReportChunk):
                found.displays += filter(None, reader.feed(frame.data))
            else:
                found.end = frame
        await self.sandbox.acknowledge(cell.nonce)
        found.stdout, found.stderr = (output[name].decode() for name in ("stdout", "stderr"))
        found.result, found.crash = reader.result, reader.crash
        return found


@define
class SharedSession:
    """One container for the tests of a module. Each adopts it with its own generation."""

    container: str
    generation: int = 1

    def adopted(self, engine: DockerEngine) -> SessionSandbox:
        self.generation += 1
        return SessionSandbox.adopt(engine, self.container, self.generation)


async def open_session(
    engine: DockerEngine, image: str, *env: str, lease_seconds: float = LEASE_SECONDS
) -> SessionSandbox:
    """Start a sandbox and open a session of the generation 1 in it."""
    spec = session_spec(image)
    long, short = (f"LEASE_SECONDS = {seconds}" for seconds in (LEASE_SECONDS, lease_seconds))
    spec = evolve(spec, command=tuple(part.replace(long, short) for part in spec.command))
    sandbox = SessionSandbox.from_sandbox(engine, await Sandbox.start(engine, spec))
    try:
        await sandbox.unpack()
        await sandbox.open(SessionPlan(env=env, memory_bytes=MEMORY_BYTES, disk_bytes=DISK_BYTES), 1)
    except BaseException:
        await sandbox.remove()
        raise
    return sandbox


@asynccontextmanager
async def serving(sandbox: SessionSandbox) -> AsyncIterator[Client]:
    """Serve the connection, and wait until it is ready; close it at the end.

    A fixture ends in another task, so this is no task group."""
    task = asyncio.create_task(sandbox.serve())
    await asyncio.sleep(0)  # a task that is cancelled before it begins does not close its streams
    await sandbox.ready.wait()
    try:
        yield Client(sandbox)
    finally:
        task.cancel()
        await asyncio.wait([task])
        await sandbox.detach()
