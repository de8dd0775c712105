"""Split the frames of a session's sandbox into those of the cell and of the transfer."""

import logging
import math

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from pyexec.errors import ExecutorError, SandboxBroken
from pyexec.guest.session_files import FILE_COST, WINDOW
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
TRANSFER_BYTES_MAX = 8 * WINDOW
"""Memory that waiting frames of a transfer may take. A window of contents takes the most."""
FRAME_BYTES = 256
DROPPED_BYTES_PER_SECOND = 16 * 1024 * 1024
REFUSALS_MAX = 100

logger = logging.getLogger(__name__)


class CellReceiver:
    """The frames of one cell. After a reconnection, the supervisor sends all of them again; known bytes are skipped."""

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
        self._buffered += memory_of(frame)
        if self._buffered > TRANSFER_BYTES_MAX:
            raise SandboxBroken(
                f"a transfer of files has more than {TRANSFER_BYTES_MAX} bytes of unread frames"
            )
        try:
            self._send.send_nowait(frame)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return  # the transfer's reader is gone

    def consumed(self, frame: FileFrame | TransferEnded) -> None:
        """Subtract a frame that the reader has consumed."""
        self._buffered -= memory_of(frame)

    def close(self) -> None:
        """Drop the remaining frames: the transfer has ended, or its reader is gone."""
        self._send.close()
        self.frames.close()

    def fail(self, error: ExecutorError) -> None:
        """End the transfer with an error."""
        self.error = error
        self.has_ended = True
        self._send.close()


class Refusals:
    """Logs the lines that a supervisor has refused: only a few, because a hostile image can claim any number."""

    def __init__(self) -> None:
        self._count = 0

    def record(self, name: str, message: str) -> None:
        """Log a refusal of the supervisor of the container `name`."""
        self._count += 1
        if self._count > REFUSALS_MAX:
            raise SandboxBroken(f"the supervisor has refused {REFUSALS_MAX} lines")
        logger.warning("the supervisor of %s refused a line: %s", name, message)


async def pause_after(dropped: int) -> None:
    """Slow down a hostile image that sends endless data that no task reads. `dropped` is a number of bytes."""
    await anyio.sleep(dropped / DROPPED_BYTES_PER_SECOND)


def window_bytes(frame: FileFrame | TransferEnded) -> int:
    """Return how much of the window a frame takes, as the supervisor counts it."""
    if isinstance(frame, FileChunk):
        return len(frame.data)
    return FILE_COST if isinstance(frame, FileHeader) else 0


def memory_of(frame: FileFrame | TransferEnded) -> int:
    """Return about how much memory a frame takes. A hostile image can send frames of any kind."""
    match frame:
        case FileChunk():
            return FRAME_BYTES + len(frame.data)
        case FileHeader() | FileSkipped():
            return FRAME_BYTES + len(frame.path)
        case FilesCollected():
            return FRAME_BYTES * (1 + len(frame.skipped_patterns))
    return FRAME_BYTES
