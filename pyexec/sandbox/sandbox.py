"""One sandbox: a container whose supervisor takes one program, runs it, and tells how it ended."""

from collections import deque
from collections.abc import AsyncIterator
from typing import Self

import anyio

from pyexec.errors import EngineError, ImageUnavailable, SandboxBroken, SandboxRefused
from pyexec.ports import Container, ContainerSpec, Engine
from pyexec.sandbox import protocol
from pyexec.sandbox.protocol import Frame, Go, Ready, Refused, Started, Unpacked

START_SECONDS = 30.0
UNPACK_SECONDS = 120.0
FRAME_BYTES = 256 * 1024


class Sandbox:
    """Single-use. After `start`: `send_archive` as often as needed, `unpack`, `arm`, `go`, `frames`; `remove` at
    any time.

    Every method raises `SandboxBroken` when the sandbox has ended or speaks nonsense, `SandboxRefused` when the
    supervisor says no."""

    def __init__(self, container: Container, image: str | None = None) -> None:
        self._container = container
        self.image = image
        self._decoder = protocol.Decoder()
        self._frames: deque[Frame] = deque()
        self._eof = False

    @property
    def container_id(self) -> str:
        return self._container.id

    @classmethod
    async def start(cls, engine: Engine, spec: ContainerSpec, image: str | None = None) -> Self:
        """A sandbox that waits for its program, in the image of this digest.

        Raises `ImageUnavailable` when no supervisor comes up in it."""
        sandbox = cls(await engine.start(spec), image)
        try:
            with anyio.fail_after(START_SECONDS):
                await sandbox._expect(Ready)
        except (SandboxBroken, TimeoutError) as error:
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

        Its frames come from the first on. Raises `EngineError` when the container is gone."""
        return cls(await engine.follow(container_id))

    async def broken(self) -> None:
        """Returns when a waiting sandbox is of no use any more. May be cancelled, and the sandbox then used."""
        if await self._next() is not None:
            raise SandboxBroken("a waiting sandbox spoke before it was asked")

    async def send_archive(self, data: bytes) -> None:
        """The next bytes of the archive."""
        for start in range(0, len(data), FRAME_BYTES):
            await self._write(protocol.archive_frame(data[start : start + FRAME_BYTES]))

    async def unpack(self) -> None:
        """Ends the archive, and waits until it is in place."""
        await self._write(protocol.archive_frame(b""))
        with anyio.move_on_after(UNPACK_SECONDS):
            await self._expect(Unpacked)
            return
        raise SandboxBroken(f"the archive was not unpacked within {UNPACK_SECONDS:g} s")

    async def arm(self, stdin: bytes) -> None:
        """Hands over the program's standard input. From here on the go-ahead must come soon, or is refused."""
        await self._write(protocol.stdin_frame(stdin))

    async def go(self, order: Go) -> None:
        """Starts the program; returns when its process exists."""
        await self._write(protocol.go_frame(order))
        await self._expect(Started)

    async def frames(self) -> AsyncIterator[Frame]:
        """What the program prints and at last how it ended; ends early when the sandbox does."""
        while (frame := await self._next()) is not None:
            yield frame

    async def kill(self) -> None:
        """Ends every process in it at once."""
        await self._container.kill()

    async def remove(self) -> None:
        """Leaves nothing of it."""
        await self._container.remove()

    async def let_go(self) -> None:
        """Ends the connection to it; its program goes on."""
        await self._container.let_go()

    async def _write(self, data: bytes) -> None:
        try:
            await self._container.write(data)
        except EngineError as error:
            while (frame := await self._next()) is not None:
                if isinstance(frame, Refused):
                    raise SandboxRefused(frame.message, code=frame.code) from error
            raise SandboxBroken("the sandbox ended while it was being filled") from error

    async def _expect(self, kind: type[Frame]) -> None:
        frame = await self._next()
        if isinstance(frame, Refused):
            raise SandboxRefused(frame.message, code=frame.code)
        if not isinstance(frame, kind):
            told = self._container.diagnostics
            raise SandboxBroken(f"expected {kind.__name__}, got {type(frame).__name__}. {told}")

    async def _next(self) -> Frame | None:
        while not self._frames:
            if self._eof:
                return None
            try:
                data = await self._container.read()
            except EngineError:
                data = None
            if data is None:
                self._eof = True
            else:
                self._frames.extend(self._decoder.feed(data))
        return self._frames.popleft()
