"""The connection to the running sandbox of a session. See docs/design/sessions.md."""

import json
import logging
import secrets
from contextlib import suppress
from functools import partial

import anyio

from pyexec.aio import FailureLog, retry
from pyexec.errors import ContainerGone, EngineError, SandboxBroken, Unavailable
from pyexec.guest import wire
from pyexec.guest.session_lines import DATA_BYTES_MAX
from pyexec.ports import Container, Engine
from pyexec.sandbox.decoder import decode_frame
from pyexec.sandbox.frame_stream import RETRY_SECONDS, FrameStream
from pyexec.sandbox.sandbox import USAGE_SECONDS
from pyexec.sandbox.session_protocol import Synced, json_line

SYNC_SECONDS = 10.0
FLUSH = b" " * DATA_BYTES_MAX + b"\n"
"""Ends a line, and the bytes after a line, that the last connection has begun."""
UNRELATED_BYTES_MAX = 64 * 1024 * 1024
"""Bytes of earlier frames that may arrive before the answer."""
ANSWER_BYTES_MAX = 1024

logger = logging.getLogger(__name__)


class SessionConnection:
    """The connection to the container of a session, which can be opened again.

    The methods raise `EngineError` or `Unavailable` if the engine does not answer, or if there is no connection yet."""

    def __init__(self, engine: Engine, container_id: str, stream: FrameStream | None = None) -> None:
        self.container_id = container_id
        self._engine = engine
        self._stream = stream

    @property
    def name(self) -> str:
        """The short id of the container."""
        return self.container_id[:12]

    @property
    def is_open(self) -> bool:
        """False before the first connection to the session of another replica."""
        return self._stream is not None

    @property
    def stream(self) -> FrameStream:
        """The frames of the current connection."""
        if self._stream is None:
            raise EngineError(f"the session's sandbox {self.name} is not connected yet")
        return self._stream

    async def open(self, generation: int) -> Synced | None:
        """Connect, and synchronize with the supervisor. Retry while the engine or the supervisor does not answer.

        Return None if the container no longer runs, or if it could not be reached before its lease expired."""
        with suppress(EngineError, Unavailable):
            await self.detach()
        failures = FailureLog(logger, f"connecting to the session's sandbox {self.name}")
        with anyio.move_on_after(wire.LEASE_SECONDS):
            return await retry(
                partial(self._open, generation),
                failures,
                seconds=RETRY_SECONDS,
                errors=(EngineError, Unavailable),
            )
        logger.error("the session's sandbox %s did not answer before its lease expired", self.name)
        return None

    async def _open(self, generation: int) -> Synced | None:
        try:
            self._stream, synced = await attach(self._engine, self.container_id, generation)
        except ContainerGone:
            return None
        return synced

    async def write(self, data: bytes) -> None:
        """Send lines or frames to the supervisor."""
        await self.stream.container.write(data)

    async def has_oom_event(self) -> bool:
        """Return True if the engine has an event of a process that was killed for lack of memory."""
        with suppress(EngineError, Unavailable):
            return await self.stream.container.has_oom_event()
        return False

    async def engine_answers(self) -> bool:
        """Return False if the engine does not respond. A silent engine does not break the connection."""
        with suppress(EngineError, Unavailable), anyio.move_on_after(USAGE_SECONDS):
            await self._engine.check()
            return True
        return False

    async def cpu_seconds(self) -> float | None:
        """Return the processor time of the container, by the engine's counter; None if the engine reports none."""
        with suppress(EngineError, Unavailable), anyio.move_on_after(USAGE_SECONDS):
            return (await self.stream.container.usage()).cpu_seconds
        return None

    async def remove(self) -> None:
        """Kill and remove the container."""
        if self._stream is None:
            await self._engine.remove_container(self.container_id)
        else:
            await self._stream.container.remove()

    async def detach(self) -> None:
        """Close the connection."""
        if self._stream is not None:
            await self._stream.container.detach()


def new_token() -> str:
    """Return a token that distinguishes the answer to this request."""
    return secrets.token_hex(8)


async def attach(engine: Engine, container_id: str, generation: int) -> tuple[FrameStream, Synced]:
    """Attach to the container and synchronize with its supervisor.

    Raises `ContainerGone` if the container no longer runs, and `EngineError` if the supervisor does not
    answer."""
    container = await engine.attach(container_id)
    try:
        with anyio.fail_after(SYNC_SECONDS):
            token = new_token()
            await container.write(FLUSH + json_line("SYNC", generation, token=token))
            synced, rest = await _find_answer(container, token)
            return FrameStream(engine, container, rest), synced
    except BaseException as error:
        with anyio.CancelScope(shield=True):
            await container.detach()
        if isinstance(error, TimeoutError):
            raise EngineError(
                f"the supervisor of {container_id[:12]} did not answer within {SYNC_SECONDS:g} s"
            ) from error
        raise


async def _find_answer(container: Container, token: str) -> tuple[Synced, bytes]:
    """Return the answer, and what was received after it. The connection may begin in the middle of a frame."""
    begin = json.dumps({"event": "synced", "token": token})[:-1].encode()
    data, total = bytearray(), 0
    while (part := await container.read()) is not None:
        data += part
        total += len(part)
        if total > UNRELATED_BYTES_MAX:
            raise SandboxBroken("the sandbox sends other frames instead of the answer to SYNC")
        at = data.find(begin)
        if at < 0:
            del data[: -len(begin) - wire.HEADER.size]
            continue
        if at < wire.HEADER.size:
            raise SandboxBroken("the answer to SYNC has no header")
        kind, length = wire.HEADER.unpack_from(data, at - wire.HEADER.size)
        if length > ANSWER_BYTES_MAX:
            raise SandboxBroken(f"the answer to SYNC has {length} bytes; the limit is {ANSWER_BYTES_MAX}")
        if len(data) <= at + length:
            continue
        synced = decode_frame(kind, bytes(data[at : at + length]))
        if not isinstance(synced, Synced):
            raise SandboxBroken(f"the answer to SYNC is {type(synced).__name__}")
        return synced, bytes(data[at + length + 1 :])
    raise ContainerGone("the sandbox ended before it answered")
