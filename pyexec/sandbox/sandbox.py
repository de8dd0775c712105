"""One sandbox: a container whose supervisor takes one program, runs it, and tells how it ended."""

import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Self

import anyio

from pyexec.errors import (
    ContainerGone,
    EngineError,
    ImageUnavailable,
    SandboxBroken,
    SandboxRefused,
    Unavailable,
)
from pyexec.ports import Container, ContainerSpec, Engine
from pyexec.sandbox import protocol
from pyexec.sandbox.protocol import Frame, Go, Plan, Ready, Refused, Started, Unpacked

START_SECONDS = 30.0
SILENT_SECONDS = 5.0
UNPACK_SECONDS = 120.0
FRAME_BYTES = 256 * 1024
RETRY_SECONDS = 1.0
FRAMES_PER_SECOND = FRAMES_AT_ONCE = 20_000
"""Ten times what a supervisor of ours has to say; a hostile one that says more waits, and keeps nobody else waiting."""

logger = logging.getLogger(__name__)


class Sandbox:
    """Single-use. After `start`: `send_archive` as often as needed, `unpack`, `arm`, `go`, `frames`; `remove` at
    any time.

    Every method raises `SandboxBroken` when the sandbox has ended or speaks nonsense, `SandboxRefused` when the
    supervisor says no, `EngineError` when the connection to it breaks; from `go` on another one is made then."""

    def __init__(self, engine: Engine, container: Container, image: str | None = None) -> None:
        self._engine = engine
        self._container = container
        self.image = image
        self._decoder = protocol.Decoder()
        self._frames: deque[Frame] = deque()
        self._received = 0
        self._known = 0
        self._eof = False
        self._credit = float(FRAMES_AT_ONCE)
        self._heard_at = 0.0
        self.out_of_reach = False
        """Whether its engine does not answer at present."""
        self.was_out_of_reach = False
        """Whether that was so at any time since `go`."""

    @property
    def container_id(self) -> str:
        return self._container.id

    @classmethod
    async def start(cls, engine: Engine, spec: ContainerSpec, image: str | None = None) -> Self:
        """A sandbox that waits for its program, in the image of this digest.

        Raises `ImageUnavailable` when no supervisor comes up in it."""
        sandbox = cls(engine, await engine.start(spec), image)
        try:
            with anyio.fail_after(START_SECONDS):
                await sandbox._expect(Ready)
        except (SandboxBroken, SandboxRefused, TimeoutError) as error:
            await sandbox.remove()
            told = sandbox._container.diagnostics or "it did not say why"
            raise ImageUnavailable(
                f"the image {spec.image!r} has no Python 3.8 or later that can run programs: {told}"
            ) from error
        except BaseException:
            with anyio.CancelScope(shield=True):
                await sandbox.remove()
            raise
        return sandbox

    @classmethod
    async def adopt(cls, engine: Engine, container_id: str) -> Self:
        """A sandbox whose program another process has started; only `frames`, `kill` and `remove` serve.

        Its frames come from the first on. Raises `ContainerGone` when the container is."""
        return cls(engine, await engine.follow(container_id))

    async def broken(self) -> None:
        """Returns when a waiting sandbox is of no use any more. May be cancelled, and the sandbox then used."""
        try:
            frame = await self._next()
        except EngineError as error:
            raise SandboxBroken(str(error)) from error
        if frame is not None:
            raise SandboxBroken("a waiting sandbox spoke before it was asked")

    async def send_archive(self, data: bytes) -> None:
        """The next bytes of the archive."""
        for start in range(0, len(data), FRAME_BYTES):
            await self._write(protocol.archive_frame(data[start : start + FRAME_BYTES]))

    async def unpack(self) -> None:
        """Ends the archive, and waits until it is in place. Raises `Unavailable` when the engine is away."""
        await self._write(protocol.archive_frame(b""))
        for seconds in (SILENT_SECONDS, UNPACK_SECONDS):
            with anyio.move_on_after(seconds):
                await self._expect(Unpacked)
                return
            await self._engine.check()  # it may be the engine that is silent, and then says nothing for ever
        raise SandboxBroken(f"the archive was not unpacked within {UNPACK_SECONDS:g} s")

    async def arm(self, plan: Plan, stdin: bytes) -> None:
        """Says what the program will be. From here on the go-ahead must come soon, or is refused."""
        await self._write(protocol.plan_frames(plan, stdin))

    async def go(self, order: Go) -> None:
        """Starts the program; returns when its process exists."""
        with suppress(EngineError, Unavailable):  # whether it has arrived is told by what comes now
            await self._container.write(protocol.go_frame(order))
        self._check(await self._next_for_sure(), Started)

    async def frames(self) -> AsyncIterator[Frame]:
        """What the program prints and at last how it ended; ends early when the sandbox does.

        Waits for an engine that does not answer for as long as it takes."""
        while (frame := await self._next_for_sure()) is not None:
            yield frame

    async def check_in_reach(self) -> None:
        """Asks the engine, which may be silent without a connection that breaks; `out_of_reach` has its answer."""
        try:
            await self._engine.check()
        except (EngineError, Unavailable):
            self.out_of_reach = self.was_out_of_reach = True

    async def kill(self) -> None:
        """Ends every process in it at once."""
        await self._container.kill()

    async def remove(self) -> None:
        """Leaves nothing of it."""
        await self._container.remove()

    async def detach(self) -> None:
        """Ends the connection to it; its program goes on."""
        await self._container.detach()

    async def _write(self, data: bytes) -> None:
        try:
            await self._container.write(data)
        except EngineError as error:
            with suppress(EngineError):
                while (frame := await self._next()) is not None:
                    if isinstance(frame, Refused):
                        raise SandboxRefused(frame.message, code=frame.code) from error
            raise SandboxBroken("the sandbox ended while it was being filled") from error

    async def _expect(self, kind: type[Frame]) -> None:
        self._check(await self._next(), kind)

    def _check(self, frame: Frame | None, kind: type[Frame]) -> None:
        if isinstance(frame, Refused):
            raise SandboxRefused(frame.message, code=frame.code)
        if not isinstance(frame, kind):
            told = self._container.diagnostics
            raise SandboxBroken(f"expected {kind.__name__}, got {type(frame).__name__}. {told}")

    async def _next(self) -> Frame | None:
        while not self._frames:
            if self._eof:
                return None
            data = await self._container.read()
            if data is None:
                self._eof = True
                return None
            before = self._received
            for frame in self._decoder.feed(data):
                self._received += 1
                if self._received > self._known:
                    self._frames.append(frame)
            await self._keep_pace(self._received - before)
        return self._frames.popleft()

    async def _keep_pace(self, frames: int) -> None:
        """Waits after too many frames; what the sandbox says meanwhile stays in its pipe, and then it must wait."""
        now = anyio.current_time()
        earned = (now - self._heard_at) * FRAMES_PER_SECOND
        self._credit = min(FRAMES_AT_ONCE, self._credit + earned) - frames
        self._heard_at = now
        if self._credit < 0:
            await anyio.sleep(-self._credit / FRAMES_PER_SECOND)

    async def _next_for_sure(self) -> Frame | None:
        """The next frame, over connections that break; None once the sandbox has ended."""
        while True:
            try:
                return await self._next()
            except EngineError as error:
                logger.warning("the sandbox %s is followed anew: %s", self.container_id[:12], error)
                if not await self._follow_anew():
                    return None

    async def _follow_anew(self) -> bool:
        """Goes on by the engine's log, which has every frame from the first on; False when there is none."""
        await self._container.detach()
        while True:
            try:
                container = await self._engine.follow(self.container_id)
            except ContainerGone:
                self.out_of_reach, self._eof = False, True
                return False
            except (EngineError, Unavailable):
                self.out_of_reach = self.was_out_of_reach = True
                await anyio.sleep(RETRY_SECONDS)
            else:
                break
        self.out_of_reach = False
        self._container, self._decoder = container, protocol.Decoder()
        self._known, self._received = max(self._known, self._received), 0
        return True
