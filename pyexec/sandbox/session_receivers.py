"""Split the frames of a session's sandbox into those of the cell and of the transfer."""

import math

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from pyexec.errors import ExecutorError, SandboxBroken
from pyexec.guest.session_files import WINDOW
from pyexec.sandbox.protocol import (
    FileChunk,
    FileHeader,
    FilesCollected,
    FileSkipped,
    OutputChunk,
    ReportChunk,
)
from pyexec.sandbox.session_protocol import CellEnded, TransferEnded

CellFrame = OutputChunk | ReportChunk | CellEnded
FileFrame = FileHeader | FileChunk | FileSkipped | FilesCollected
CELL_FRAMES_MAX = 16


class CellReceiver:
    """The frames of one cell. After a reconnection the supervisor sends all of them again; those known are skipped."""

    def __init__(self, nonce: str) -> None:
        self.nonce = nonce
        self.ended = False
        self._received = 0
        """Bytes of output and reports. The supervisor may split them in other ways when it sends them again."""
        self._skip = 0
        self._send: MemoryObjectSendStream[CellFrame]
        self.frames: MemoryObjectReceiveStream[CellFrame]
        self._send, self.frames = anyio.create_memory_object_stream[CellFrame](CELL_FRAMES_MAX)

    def restart(self) -> None:
        """Skip the bytes received so far: the supervisor resends all frames."""
        self._skip = self._received

    async def add(self, frame: CellFrame) -> None:
        if self.ended:
            return
        if isinstance(frame, CellEnded):
            self.ended = True
        else:
            data = frame.data
            known = min(self._skip, len(data))
            self._skip -= known
            if not (data := data[known:]):
                return
            self._received += len(data)
            frame = OutputChunk(frame.stream, data) if isinstance(frame, OutputChunk) else ReportChunk(data)
        try:
            await self._send.send(frame)
        except anyio.BrokenResourceError:
            return  # the cell's reader is gone

    def close(self) -> None:
        """End the frames: the sandbox has ended."""
        self._send.close()


class TransferReceiver:
    """The frames of one transfer of files."""

    def __init__(self, transfer_id: int) -> None:
        self.id = transfer_id
        self.has_ended = False
        self.error: ExecutorError | None = None
        self._buffered = 0
        self._send: MemoryObjectSendStream[FileFrame | TransferEnded]
        self.frames: MemoryObjectReceiveStream[FileFrame | TransferEnded]
        self._send, self.frames = anyio.create_memory_object_stream[FileFrame | TransferEnded](math.inf)

    def add(self, frame: FileFrame | TransferEnded) -> None:
        """Keep a frame for the reader. The supervisor sends no more than the window."""
        self.has_ended |= isinstance(frame, TransferEnded)
        if isinstance(frame, FileChunk):
            self._buffered += len(frame.data)
            if self._buffered > 2 * WINDOW:
                raise SandboxBroken("the sandbox sends more of its files than it may")
        try:
            self._send.send_nowait(frame)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return  # the transfer's reader is gone

    def consumed(self, size: int) -> None:
        """Subtract bytes that the reader has consumed."""
        self._buffered -= size

    def close(self) -> None:
        """Drop what is left: the transfer has ended, or its reader is gone."""
        self._send.close()
        self.frames.close()

    def fail(self, error: ExecutorError) -> None:
        """End the transfer with an error."""
        self.error = error
        self.has_ended = True
        self._send.close()
