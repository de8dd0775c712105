"""The frames that a sandbox sends, over one connection after another."""

import logging
from collections import deque
from typing import TypeVar

import anyio
import anyio.lowlevel

from pyexec.aio import FailureLog, retry
from pyexec.errors import ContainerGone, EngineError, SandboxBroken, SandboxRefused, Unavailable
from pyexec.ports import Container, Engine
from pyexec.sandbox.decoder import Decoder
from pyexec.sandbox.protocol import Frame, Rejected

LOG_OVERHEAD_BYTES = 64
"""The engine's log stores this much for each frame in addition to its bytes."""
RETRY_SECONDS = 1.0
FRAMES_PER_SECOND, FRAME_BURST = 5_000, 10_000
"""Ten times the small frames that a supervisor sends. A hostile sandbox that sends more is slowed down, and does not
slow down others."""
LARGE_FRAME_BYTES = 4096
"""Frames of this size with output or files are not limited: other limits bound their number."""
JSON_FRAME_BYTES = 256
"""How many bytes of JSON count as one more frame. No other limit bounds the JSON that a session's sandbox sends."""
FRAMES_AT_ONCE = 32
"""More frames in one piece of data may delay other tasks."""

logger = logging.getLogger(__name__)

FrameKind = TypeVar("FrameKind", bound=Frame)


class FrameStream:
    """Reads and decodes the frames of a container.

    The methods raise `SandboxBroken` if a frame is invalid. `next` raises `EngineError` if the connection breaks;
    `next_or_reconnect` reads the engine's log of the container instead, which has all frames from the first one."""

    def __init__(self, engine: Engine, container: Container, received: bytes = b"") -> None:
        """`received` is what the connection has already sent."""
        self.container = container
        """The current connection."""
        self.log_bytes = 0
        """Bytes in the engine's log of this container."""
        self.engine_unreachable = False
        """True while the engine does not respond."""
        self.engine_was_unreachable = False
        """True if the engine has failed to respond since `forget_outages`."""
        self._engine = engine
        self._decoder = Decoder()
        self._frames: deque[Frame] = deque()
        self._received = 0
        self._seen = 0
        """Frames received over earlier connections. A new connection sends them again; they are skipped."""
        self._unread = received
        self._eof = False
        self._credit = float(FRAME_BURST)
        self._credit_at = 0.0

    @property
    def was_interrupted(self) -> bool:
        """True if the connection has broken once. The sandbox's input has been closed since then."""
        return self._seen > 0

    def forget_outages(self) -> None:
        """Reset the records of outages, before the next program."""
        self.engine_unreachable = self.engine_was_unreachable = False

    def record_outage(self) -> None:
        """Record that the engine does not respond."""
        self.engine_unreachable = self.engine_was_unreachable = True

    def check(self, frame: Frame | None, kind: type[FrameKind]) -> FrameKind:
        """Return `frame` if it is of this kind. Raises `SandboxRefused` if it is a rejection, else `SandboxBroken`."""
        if isinstance(frame, Rejected):
            raise SandboxRefused(frame.message, code=frame.code)
        if not isinstance(frame, kind):
            found = "the end" if frame is None else type(frame).__name__
            raise SandboxBroken(f"expected {kind.__name__}, got {found}. {self.container.diagnostics}")
        return frame

    async def next(self) -> Frame | None:
        """Return the next frame; None after the sandbox has ended."""
        while not self._frames:
            if self._eof:
                return None
            data, self._unread = self._unread or await self.container.read(), b""
            if data is None:
                self._eof = True
                return None
            before, large = self._received, len(data) // LARGE_FRAME_BYTES
            json_before = self._decoder.json_bytes
            for frame in self._decoder.feed(data):
                self._received += 1
                if self._received > self._seen:
                    self._frames.append(frame)
            frames = self._received - before
            self.log_bytes += len(data) + LOG_OVERHEAD_BYTES * frames
            json_bytes = self._decoder.json_bytes - json_before
            await self._limit_rate(max(0, frames - large) + json_bytes // JSON_FRAME_BYTES)
            if frames > FRAMES_AT_ONCE:
                await anyio.lowlevel.checkpoint()
        return self._frames.popleft()

    async def next_or_reconnect(self) -> Frame | None:
        """Return the next frame; None after the sandbox has ended. Reconnect if the connection breaks.

        Pause between connections that bring no new frame: the engine accepts them, but cannot read the container."""
        reconnected_at: int | None = None
        while True:
            try:
                return await self.next()
            except EngineError as error:
                if reconnected_at is not None and self._known == reconnected_at:
                    await anyio.sleep(RETRY_SECONDS)
                reconnected_at = self._known
                logger.warning("connection to the sandbox %s lost; reconnecting: %s", self._name, error)
                if not await self._reconnect():
                    return None

    async def _limit_rate(self, frames: int) -> None:
        """Pause after too many frames (a token bucket). Meanwhile the sandbox's pipe fills, and blocks it."""
        now = anyio.current_time()
        earned = (now - self._credit_at) * FRAMES_PER_SECOND
        self._credit = min(FRAME_BURST, self._credit + earned) - frames
        self._credit_at = now
        if self._credit < 0:
            await anyio.sleep(-self._credit / FRAMES_PER_SECOND)

    async def _reconnect(self) -> bool:
        """Connect to the engine's log of the container. Return False if the container no longer exists."""
        await self.container.detach()
        failures = FailureLog(logger, f"reconnecting to the sandbox {self._name}")
        container = await retry(
            self._follow, failures, seconds=RETRY_SECONDS, errors=(EngineError, Unavailable)
        )
        self.engine_unreachable = False
        if container is None:
            self._eof = True
            return False
        self.container, self._decoder = container, Decoder()
        self._seen, self._received = self._known, 0
        return True

    async def _follow(self) -> Container | None:
        try:
            return await self._engine.follow(self.container.id)
        except ContainerGone:
            return None
        except (EngineError, Unavailable):
            self.record_outage()
            raise

    @property
    def _known(self) -> int:
        """The number of different frames received."""
        return max(self._seen, self._received)

    @property
    def _name(self) -> str:
        return self.container.id[:12]
