"""One sandbox: a container whose supervisor runs programs, one after another, and reports how each ended."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Self

import anyio

from pyexec.domain.events import Usage
from pyexec.errors import (
    EngineError,
    ExecutorError,
    ImageUnavailable,
    SandboxBroken,
    SandboxRefused,
    SandboxStalled,
    Unavailable,
)
from pyexec.ports import Container, ContainerSpec, ContainerUsage, Engine
from pyexec.sandbox import protocol
from pyexec.sandbox.frame_stream import FrameStream
from pyexec.sandbox.protocol import (
    Frame,
    ProgramPlan,
    Ready,
    Rejected,
    Retired,
    Started,
    StartSignal,
    Unpacked,
)

STARTUP_SECONDS = 30.0
FULL_SPEED_CPUS = 0.1
"""With fewer processors, a start has proportionally more time: it takes about 0.2 s of processor time (2026-11-28)."""
CHECK_SECONDS = 5.0
"""If the supervisor sends nothing for this long, check the engine, because it may be the cause."""
UNPACK_SECONDS = 60.0
UNPACK_BYTES_PER_SECOND_MIN = 1024 * 1024
"""A supervisor may spend `UNPACK_SECONDS` on an archive, and the time that its bytes take at this rate. Supervisors
unpack some 100 MB per second; one that a caller has replaced could otherwise hold a slot for hours."""
CLEAN_SECONDS = 2.0
"""Maximum time for the cleanup and the start of the next interpreter: twenty times the processor time of a cleanup."""
FRAME_BYTES = 256 * 1024
USAGE_SECONDS = 2.0

logger = logging.getLogger(__name__)


class Sandbox:
    """A sandbox for one program at a time.

    After `start`, call `send_archive` as often as needed, then `unpack`, `send_plan`, `start_program` and `frames`.
    If `wait_until_clean` then returns True, begin again with `send_archive`. `remove` is allowed at any time.

    Every method raises `SandboxBroken` if the sandbox has ended or sends invalid frames, `SandboxRefused` if the
    supervisor rejects a request, and `EngineError` if the connection breaks. From `start_program` on, the sandbox
    reconnects instead. `send_archive`, `unpack` and `send_plan` raise `SandboxStalled` if the supervisor takes too
    long, and `Unavailable` if the engine is the cause."""

    def __init__(self, engine: Engine, container: Container, image: str | None = None) -> None:
        self._engine = engine
        self._stream = FrameStream(engine, container)
        self.image = image
        self.python = ""
        """The version of its Python, as its supervisor has reported it; empty if it is not known."""
        self.created_at = anyio.current_time()
        self.runs = 0
        """How many programs this sandbox has started."""
        self._slowness = 1.0
        """How many times longer than at full speed everything may take, because the sandbox has few processors."""
        self._unsent = b""
        """The last frame of the archive so far, held back to send the end of the archive in the same write."""
        self._unpack_seconds = 0.0
        """How long this object has waited for the supervisor to take and to unpack the archive."""
        self._archive_bytes = 0
        self._nonce: str | None = None
        """The frames before this start are of other programs, and are skipped."""
        self._started: Started | None = None
        """The STARTED frame of the current program; None until it has arrived."""

    @property
    def container_id(self) -> str:
        return self._stream.container.id

    @property
    def log_bytes(self) -> int:
        """Bytes in the engine's log of the container."""
        return self._stream.log_bytes

    @property
    def was_interrupted(self) -> bool:
        """True if the connection has broken once. The sandbox takes no other program then."""
        return self._stream.was_interrupted

    @property
    def engine_unreachable(self) -> bool:
        """True while the engine does not respond."""
        return self._stream.engine_unreachable

    @property
    def engine_was_unreachable(self) -> bool:
        """True if the engine has failed to respond at some time since `start_program`."""
        return self._stream.engine_was_unreachable

    @classmethod
    async def start(cls, engine: Engine, spec: ContainerSpec, image: str | None = None) -> Self:
        """Start a sandbox that waits for its program. `image` is the digest of its image.

        Raises `ImageUnavailable` if the supervisor does not start in this image."""
        sandbox = cls(engine, await engine.start(spec), image)
        sandbox._slowness = max(1.0, FULL_SPEED_CPUS / (spec.cpus or FULL_SPEED_CPUS))
        seconds = STARTUP_SECONDS * sandbox._slowness
        try:
            with anyio.fail_after(seconds):
                sandbox.python = sandbox._stream.check(await sandbox._stream.next(), Ready).python
        except TimeoutError as error:
            await sandbox.remove()
            cpus = "" if spec.cpus is None else f" with config.cpus {spec.cpus:g}"
            raise ImageUnavailable(
                f"the Python of the image {spec.image!r} did not start within {seconds:g} s{cpus}"
            ) from error
        except (SandboxBroken, SandboxRefused) as error:
            await sandbox.remove()
            reason = sandbox._stream.container.diagnostics or "it printed no reason"
            raise ImageUnavailable(
                f"the image {spec.image!r} has no Python 3.8 or later that can run programs: {reason}"
            ) from error
        except BaseException:
            with anyio.CancelScope(shield=True):
                await sandbox.remove()
            raise
        return sandbox

    @classmethod
    async def adopt(cls, engine: Engine, container_id: str, nonce: str) -> Self:
        """Connect to a sandbox in which another process has started a program with this nonce.

        Only `frames`, `kill`, `remove` and `detach` are allowed. `frames` begins with the first frame of this program.
        Raises `ContainerGone` if the container no longer exists."""
        sandbox = cls(engine, await engine.follow(container_id))
        sandbox._nonce = nonce
        return sandbox

    def detach_stream(self) -> FrameStream:
        """Return the connection to the sandbox of a session. This object must not be used afterwards."""
        return self._stream

    async def wait_until_broken(self) -> None:
        """Return, or raise `SandboxBroken`, when this idle sandbox becomes unusable.

        If this is cancelled, the sandbox stays usable."""
        try:
            frame = await self._stream.next()
        except EngineError as error:
            raise SandboxBroken(str(error)) from error
        if frame is not None:
            raise SandboxBroken("an idle sandbox sent a frame")

    async def send_archive(self, data: bytes) -> None:
        """Send the next bytes of the archive. `unpack` sends the last of them together with the end."""
        for start in range(0, len(data), FRAME_BYTES):
            unsent, self._unsent = self._unsent, protocol.archive_frame(data[start : start + FRAME_BYTES])
            self._archive_bytes += len(self._unsent)
            if unsent:
                async with self._limited_unpacking():
                    await self._write(unsent, "archive")

    async def unpack(self) -> None:
        """End the archive, and wait until it is unpacked."""
        unsent, self._unsent = self._unsent, b""
        async with self._limited_unpacking():
            await self._write(unsent + protocol.archive_frame(b""), "archive")
            with anyio.move_on_after(CHECK_SECONDS) as waited:
                self._stream.check(await self._stream.next(), Unpacked)
        if waited.cancelled_caught:
            await self._engine.check()  # a silent engine does not break the connection
            async with self._limited_unpacking():
                self._stream.check(await self._stream.next(), Unpacked)
        self._unpack_seconds, self._archive_bytes = 0.0, 0

    @asynccontextmanager
    async def _limited_unpacking(self) -> AsyncIterator[None]:
        """Count the time in the block as the supervisor's. Raises `SandboxStalled` once it has had too much."""
        allowed = UNPACK_SECONDS * self._slowness + self._archive_bytes / UNPACK_BYTES_PER_SECOND_MIN
        began = anyio.current_time()
        try:
            with anyio.fail_after(allowed - self._unpack_seconds):
                yield
        except TimeoutError as error:
            await self._engine.check()
            raise SandboxStalled(f"the sandbox did not unpack the archive within {allowed:.0f} s") from error
        finally:
            self._unpack_seconds += anyio.current_time() - began

    async def send_plan(self, plan: ProgramPlan, stdin: bytes) -> None:
        """Send the plan and the standard input. Call `start_program` within a few seconds, or it is rejected."""
        await self._write(protocol.plan_frames(plan, stdin), "standard input")

    async def start_program(self, signal: StartSignal) -> None:
        """Start the program, and return when its process exists."""
        self.runs += 1
        self._started = None
        self._stream.forget_outages()
        with suppress(EngineError, Unavailable):  # the next frame shows whether the signal has arrived
            await self._stream.container.write(protocol.start_frame(signal))
        self._started = self._stream.check(await self._stream.next_or_reconnect(), Started)

    async def frames(self) -> AsyncIterator[Frame]:
        """Yield the program's output, and at the end how it ended. Stop early if the sandbox ends.

        If the engine does not respond, this waits until it does."""
        while (frame := await self._stream.next_or_reconnect()) is not None:
            if self._nonce is None:
                yield frame
            elif isinstance(frame, Rejected):
                return  # the program never started
            elif isinstance(frame, Started) and frame.nonce in (self._nonce, None):
                self._nonce, self._started = None, frame

    async def wait_until_clean(self) -> bool:
        """Return True when the sandbox is restored to its initial state; False if it cannot be reused.

        Call this after the last frame of a program whose start signal allowed another one."""
        reason = f"cleaning it timed out after {CLEAN_SECONDS:g} s"
        try:
            with anyio.move_on_after(CLEAN_SECONDS):
                frame = await self._stream.next()
                if isinstance(frame, Ready):
                    return True
                reason = frame.reason if isinstance(frame, Retired) else "its container has ended"
        except ExecutorError as error:
            reason = str(error)
        logger.info("sandbox %s is not reused: %s", self.container_id[:12], reason)
        return False

    async def check_engine(self) -> None:
        """Set `engine_unreachable` if the engine does not respond. A silent engine does not break the connection."""
        try:
            await self._engine.check()
        except (EngineError, Unavailable):
            self._stream.record_outage()

    async def usage(self) -> Usage | None:
        """Return what the running program has used so far, by the engine; None if the engine reports nothing.

        The supervisor reports it more exactly, at the program's end."""
        if self._started is None or (used := await self.container_usage()) is None:
            return None
        return Usage(
            cpu_seconds=round(max(0.0, used.cpu_seconds - self._started.cpu_seconds), 6),
            peak_memory_bytes=max(0, used.memory_bytes - self._started.memory_bytes),
        )

    async def container_usage(self) -> ContainerUsage | None:
        """Return the engine's counters of the container; None if the engine reports none."""
        with suppress(EngineError, Unavailable), anyio.move_on_after(USAGE_SECONDS):
            return await self._stream.container.usage()
        return None

    async def ran_out_of_memory(self) -> bool:
        """Return True if the kernel has killed a process in the sandbox for lack of memory, by the engine's events."""
        with suppress(EngineError, Unavailable):
            return await self._stream.container.has_oom_event()
        return False

    async def request_kill(self) -> bool:
        """Ask the supervisor to end the program and to report its end. Return False if this connection only reads."""
        with suppress(EngineError, Unavailable):
            await self._stream.container.write(protocol.KILL_FRAME)
            return True
        return False

    async def kill(self) -> None:
        """Kill every process in the sandbox."""
        await self._stream.container.kill()

    async def remove(self) -> None:
        """Kill the sandbox and remove its container."""
        await self._stream.container.remove()

    async def detach(self) -> None:
        """Close the connection; the program continues."""
        await self._stream.container.detach()

    async def _write(self, data: bytes, what: str) -> None:
        try:
            await self._stream.container.write(data)
        except Unavailable as error:
            if not isinstance(error.__cause__, TimeoutError):
                raise
            await self._engine.check()  # if it responds, it is the supervisor that reads nothing
            raise SandboxStalled(f"the sandbox did not read its {what} in time") from error
        except EngineError as error:
            with suppress(EngineError):
                while (frame := await self._stream.next()) is not None:
                    if isinstance(frame, Rejected):
                        raise SandboxRefused(frame.message, code=frame.code) from error
            raise SandboxBroken("the sandbox ended while it received its program") from error
