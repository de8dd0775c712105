"""Transfers of files to and from a session's sandbox, one after another."""

import binascii
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import anyio
from attrs import asdict

from pyexec.domain.output_files import UNSAFE, FileLimits, normalize_patterns
from pyexec.errors import EngineError, ExecutorError, SandboxBroken, SessionFileError, Unavailable
from pyexec.guest.session_files import WINDOW
from pyexec.sandbox.session_protocol import DATA_BYTES, FileDone
from pyexec.sandbox.session_receivers import FileFrame, TransferReceiver, window_bytes

CREDIT_BYTES = WINDOW // 4

WriteLine = Callable[[str, bytes], Awaitable[None]]
"""Writes a line with this command and payload to the supervisor."""


class SessionTransfers:
    """Runs transfers of one session. Each waits for the end of the one before."""

    def __init__(self, write_line: WriteLine) -> None:
        self._write_line = write_line
        self._turn = anyio.Semaphore(1)  # not a lock: another task may close an iterator
        self._last_id = 0
        self._receiver: TransferReceiver | None = None

    async def write(self, path: str, chunks: AsyncIterator[bytes]) -> None:
        """Write a file. Raises `SessionFileError`, or `EngineError` if the connection breaks."""
        async with self._transfer("WRITE", path=path) as receiver:
            async for chunk in chunks:
                for start in range(0, len(chunk), DATA_BYTES):
                    if receiver.has_ended:
                        break
                    piece = chunk[start : start + DATA_BYTES]
                    await self._write_line("DATA", binascii.b2a_base64(piece, newline=False))
            await self._write_line("DATA", b"")
            await _next(receiver)

    async def delete(self, path: str) -> None:
        """Delete a file. Raises as `write`."""
        async with self._transfer("DELETE", path=path) as receiver:
            await _next(receiver)

    async def read(
        self, patterns: tuple[str, ...], limits: FileLimits, *, only_names: bool
    ) -> AsyncGenerator[FileFrame, None]:
        """Yield the files that match, last `FilesCollected`. Raises as `write`.

        The caller closes the iterator (`aclosing`), because the next transfer waits for that."""
        request = {
            "patterns": normalize_patterns(patterns),
            "unsafe": UNSAFE.pattern,
            "list": only_names,
            **asdict(limits),
        }
        async with self._transfer("READ", **request) as receiver:
            credit = 0
            while (frame := await _next(receiver)) is not None:
                yield frame
                receiver.consumed(frame)
                credit += window_bytes(frame)
                if credit >= CREDIT_BYTES:
                    await self._write_json("CREDIT", bytes=credit)
                    credit = 0

    def add(self, frame: FileFrame | FileDone) -> bool:
        """Take a frame from the sandbox. Return False if it belongs to no transfer."""
        receiver = self._receiver
        if receiver is None or (isinstance(frame, FileDone) and frame.id != receiver.id):
            return False
        receiver.add(frame)
        return True

    def fail(self, error: ExecutorError) -> None:
        """End the current transfer with an error."""
        if self._receiver is not None:
            self._receiver.fail(error)

    @asynccontextmanager
    async def _transfer(self, command: str, **request: object) -> AsyncIterator[TransferReceiver]:
        """Begin a transfer. Cancel it if the block ends before it has."""
        async with self._turn:
            self._last_id += 1
            receiver = self._receiver = TransferReceiver(self._last_id)
            try:
                await self._write_json(command, id=receiver.id, **request)
                yield receiver
            finally:
                self._receiver = None
                receiver.close()
                if not receiver.has_ended:
                    with anyio.CancelScope(shield=True), suppress(EngineError, Unavailable, SandboxBroken):
                        await self._write_json("CANCEL")

    async def _write_json(self, command: str, **document: object) -> None:
        await self._write_line(command, json.dumps(document).encode())


async def _next(receiver: TransferReceiver) -> FileFrame | None:
    """Return the next frame; None at the end of the transfer. Raises `SessionFileError`, or why the transfer ended."""
    try:
        frame = await receiver.frames.receive()
    except anyio.EndOfStream:
        raise receiver.error or EngineError("the transfer of files has ended") from None
    if not isinstance(frame, FileDone):
        return frame
    if frame.error is not None:
        raise SessionFileError(frame.message, code=frame.error)
    return None
