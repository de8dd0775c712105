"""Transfers of files to and from a session's sandbox. None of them waits for the client of another one."""

import json
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

import anyio
from attrs import asdict

from pyexec.domain.output_files import UNSAFE, FileLimits, normalize_patterns
from pyexec.errors import EngineError, ExecutorError, SandboxBroken, SessionFileError, Unavailable
from pyexec.guest.session_files import WINDOW
from pyexec.sandbox.protocol import TransferFrame
from pyexec.sandbox.session_protocol import DATA_BYTES, TransferEnded, file_data
from pyexec.sandbox.session_receivers import FileFrame, TransferReceiver, memory_of, window_bytes

CREDIT_BYTES = WINDOW // 4
TRANSFERS_MAX = 8
"""Transfers of each kind that run at once. More wait: each takes memory here, and a thread or files in the sandbox."""
FRAME_SECONDS = 60.0
"""How long the supervisor may take for the next frame of a transfer. It searches 100,000 files in a few seconds."""
CPU_SECONDS, CPU_SECONDS_PER_BYTE = 0.2, 0.4 / (64 * 1024 * 1024)
"""The processor time that the supervisor may take for a transfer and for each byte: about twice what was measured."""

WriteLine = Callable[[str, bytes, bytes], Awaitable[None]]
"""Writes a line with this command and payload to the supervisor, and the bytes that follow it."""


class SessionTransfers:
    """Runs the transfers of one session. Each has its own window for what the supervisor may send."""

    def __init__(self, write_line: WriteLine) -> None:
        self._write_line = write_line
        self.cpu_seconds = 0.0
        """The processor time that the supervisor may have taken for all transfers."""
        self._last_id = 0
        self._receivers: dict[int, TransferReceiver] = {}
        self._turns = defaultdict[str, anyio.Semaphore](partial(anyio.Semaphore, TRANSFERS_MAX))
        """By kind: slow clients delay only transfers of their own kind. A lock cannot be used, because another task may
        close an iterator."""

    async def write(self, path: str, chunks: AsyncIterator[bytes]) -> None:
        """Write a file. Raises `SessionFileError`, `EngineError` if the connection breaks, and `Unavailable` if
        the supervisor does not answer."""
        at = 0
        async with self._transfer("write", "WRITE", path=path) as receiver:
            async for chunk in chunks:
                for start in range(0, len(chunk), DATA_BYTES):
                    if receiver.has_ended:
                        break
                    piece = chunk[start : start + DATA_BYTES]
                    await self._write_line("DATA", *file_data(receiver.id, at, piece))
                    at += len(piece)
                    self.cpu_seconds += CPU_SECONDS_PER_BYTE * len(piece)
                if receiver.has_ended:  # the caller gets the reason now, not at the end of its upload
                    break
            await self._write_line("DATA", *file_data(receiver.id, at, b""))
            await _next(receiver)

    async def delete(self, path: str) -> None:
        """Delete a file. Raises as `write`."""
        async with self._transfer("delete", "DELETE", path=path) as receiver:
            await _next(receiver)

    async def read(
        self, patterns: tuple[str, ...], limits: FileLimits, *, only_names: bool
    ) -> AsyncGenerator[FileFrame, None]:
        """Yield the files that match, last `FilesCollected`. Raises as `write`.

        The caller closes the iterator (`aclosing`), because another transfer may wait for that."""
        request = {
            "patterns": normalize_patterns(patterns),
            "unsafe": UNSAFE.pattern,
            "list": only_names,
            **asdict(limits),
        }
        async with self._transfer("list" if only_names else "read", "READ", **request) as receiver:
            credit = 0
            while (frame := await _next(receiver)) is not None:
                yield frame
                receiver.consumed(frame)
                credit += window_bytes(frame)
                self.cpu_seconds += CPU_SECONDS_PER_BYTE * window_bytes(frame)
                if credit >= CREDIT_BYTES:
                    await self._write_json("CREDIT", id=receiver.id, bytes=credit)
                    credit = 0

    def add(self, frame: TransferFrame | TransferEnded) -> int:
        """Pass a frame of the sandbox to its transfer. If the transfer has ended or is unknown, drop the frame, and
        return how many bytes of memory it took; else return 0."""
        content = frame if isinstance(frame, TransferEnded) else frame.frame
        receiver = self._receivers.get(frame.id)
        if receiver is None:
            return memory_of(content)
        receiver.add(content)
        return 0

    def fail(self, error: ExecutorError) -> None:
        """End the current transfers with an error."""
        for receiver in self._receivers.values():
            receiver.fail(error)

    @asynccontextmanager
    async def _transfer(self, kind: str, command: str, **request: object) -> AsyncIterator[TransferReceiver]:
        """Begin a transfer. Cancel it if the block ends before it has."""
        async with self._turns[kind]:
            self._last_id += 1
            self.cpu_seconds += CPU_SECONDS
            receiver = self._receivers[self._last_id] = TransferReceiver(self._last_id)
            try:
                await self._write_json(command, id=receiver.id, **request)
                yield receiver
            finally:
                del self._receivers[receiver.id]
                receiver.close()
                if not receiver.has_ended:
                    with anyio.CancelScope(shield=True), suppress(EngineError, Unavailable, SandboxBroken):
                        await self._write_json("CANCEL", id=receiver.id)

    async def _write_json(self, command: str, **document: object) -> None:
        await self._write_line(command, json.dumps(document).encode(), b"")


async def _next(receiver: TransferReceiver) -> FileFrame | None:
    """Return the next frame; None at the end of the transfer. Raises `SessionFileError`, or why the transfer ended."""
    try:
        with anyio.fail_after(FRAME_SECONDS):
            frame = await receiver.frames.receive()
    except TimeoutError as error:
        raise Unavailable(f"the session's sandbox has sent nothing for {FRAME_SECONDS:g} s") from error
    except anyio.EndOfStream:
        raise receiver.error or EngineError("the transfer of files has ended") from None
    if not isinstance(frame, TransferEnded):
        return frame
    if frame.error is not None:
        raise SessionFileError(frame.message, code=frame.error)
    return None
