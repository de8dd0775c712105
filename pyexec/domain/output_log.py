"""The output of an execution: first what its setup printed, then both streams and the displays of the program, in order
of arrival."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Container, Iterator
from enum import StrEnum
from typing import Protocol, Self

from pyexec.errors import CorruptLog

PIECE_BYTES = 64 * 1024
"""Maximum size of a piece of output that is read at once."""
SEGMENTS_AT_ONCE = 4096
"""Number of segments that take a few milliseconds to read."""


class Stream(StrEnum):
    """One of the program's two output streams, the output of the setup, or the program's displays.

    A segment of `DISPLAY` is one whole display (see displays.py); it is never joined with another one, nor split."""

    STDOUT = "stdout"
    STDERR = "stderr"
    SETUP = "setup"
    DISPLAY = "display"


_MARK = {Stream.SETUP: b"0", Stream.STDOUT: b"1", Stream.STDERR: b"2", Stream.DISPLAY: b"3"}
_STREAM = {mark: stream for stream, mark in _MARK.items()}
_HEADER_BYTES = 9
_HEADER = re.compile(rb"(?P<mark>[0123])(?P<length>[0-9a-f]{8})")


class StoredBytes(Protocol):
    """Bytes outside of memory, such as those of a file."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice) -> bytes: ...


class OutputLog:
    """The bytes of all streams in order of arrival, as segments: consecutive bytes of the same stream, or a display.

    An offset counts the bytes of all streams together. A reader that stops at an offset can continue there later, and
    gets each byte exactly once."""

    def __init__(self) -> None:
        self._data: bytearray | StoredBytes = bytearray()
        self._streams: list[Stream] = []
        self._ends: list[int] = []
        self._sizes = dict.fromkeys(Stream, 0)

    def __len__(self) -> int:
        return len(self._data)

    def append(self, stream: Stream, data: bytes) -> None:
        """Add bytes that `stream` has just produced."""
        if not data:
            return
        if not isinstance(self._data, bytearray):
            self._data = bytearray(self._data[:])
        self._data += data
        self._sizes[stream] += len(data)
        if self._streams and self._streams[-1] is stream and stream is not Stream.DISPLAY:
            self._ends[-1] = len(self._data)
        else:
            self._streams.append(stream)
            self._ends.append(len(self._data))

    def chunks(self, size: int) -> Iterator[bytes]:
        """Yield the bytes of all streams together, in chunks of this size."""
        return (bytes(self._data[at : at + size]) for at in range(0, len(self._data), size))

    def move_to(self, stored: StoredBytes) -> None:
        """Replace the bytes in memory by the same bytes elsewhere. Readers notice nothing. `append` loads them."""
        self._data = stored

    @property
    def segment_count(self) -> int:
        """The number of segments."""
        return len(self._ends)

    @property
    def setup_bytes(self) -> int:
        """The number of bytes that the setup printed. The program's bytes come after them."""
        return self._ends[0] if self._streams[:1] == [Stream.SETUP] else 0

    def relabel_setup(self) -> None:
        """Turn the output of the setup into stderr. It is the error output of an execution whose setup failed."""
        self._streams = [Stream.STDERR if stream is Stream.SETUP else stream for stream in self._streams]
        self._sizes[Stream.STDERR] += self._sizes[Stream.SETUP]
        self._sizes[Stream.SETUP] = 0

    def since(self, offset: int, until: int | None = None) -> Iterator[tuple[Stream, bytes]]:
        """Yield the segments from one offset to another, or to the end. A long segment comes in several pieces."""
        for stream, start, end in self._ranges(offset, until):
            piece = end - start if stream is Stream.DISPLAY else PIECE_BYTES
            for at in range(start, end, piece):
                yield stream, bytes(self._data[at : min(end, at + piece)])

    def _ranges(self, offset: int, until: int | None) -> Iterator[tuple[Stream, int, int]]:
        """Yield the stream, the begin and the end of each segment between two offsets.

        A display of which only a part lies between them is left out."""
        start, stop = offset, len(self) if until is None else min(until, len(self))
        for index in range(bisect_right(self._ends, offset), len(self._ends)):
            if start >= stop:
                return
            end = min(stop, self._ends[index])
            begin = self._ends[index - 1] if index else 0
            is_whole = start == begin and end == self._ends[index]
            if is_whole or self._streams[index] is not Stream.DISPLAY:
                yield self._streams[index], start, end
            start = end

    def pieces(self, wanted: Container[Stream], until: int | None = None) -> Iterator[bytes]:
        """Yield the bytes of some streams in order, in pieces of bounded size.

        An empty piece follows many short segments, so that the caller can let other tasks run."""
        piece = bytearray()
        for number, (stream, data) in enumerate(self.since(0, until), start=1):
            if stream in wanted:
                piece += data
            if len(piece) >= PIECE_BYTES:
                yield bytes(piece)
                piece.clear()
            if number % SEGMENTS_AT_ONCE == 0:
                yield b""
        yield bytes(piece)

    def displays(self, until: int | None = None) -> Iterator[bytes]:
        """Yield the displays in order."""
        return (data for stream, data in self.since(0, until) if stream is Stream.DISPLAY)

    def without_displays(self) -> Self:
        """Return a copy that has only the printed output."""
        copy = type(self)()
        for stream, start, end in self._ranges(0, None):
            if stream is not Stream.DISPLAY:
                copy.append(stream, bytes(self._data[start:end]))
        return copy

    def size_of(self, stream: Stream) -> int:
        """Return the number of bytes of one stream."""
        return self._sizes[stream]

    def bytes_of(self, stream: Stream) -> bytes:
        """Return all bytes of one stream."""
        return b"".join(self.pieces({stream}))

    def text_of(self, stream: Stream) -> str:
        """Return one stream as UTF-8 text, with invalid bytes replaced."""
        return self.bytes_of(stream).decode("utf-8", "replace")

    def encoded_length(self, size: int) -> int:
        """Return the length of `encode(size)`. `size` is at most the length of the log."""
        return size + _HEADER_BYTES * (bisect_left(self._ends, size) + 1 if size else 0)

    def encode(self, size: int | None = None) -> bytes:
        """Encode all bytes, or the first `size` bytes, for storage.

        Each segment is its stream's mark, its length in eight hex digits, and its bytes."""
        return b"".join(
            _MARK[stream] + b"%08x" % (end - start) + self._data[start:end]
            for stream, start, end in self._ranges(0, size)
        )

    @classmethod
    def decode(cls, stored: bytes) -> Self:
        """Return the output log that was encoded; raise `CorruptLog` if the bytes are malformed."""
        output_log, at = cls(), 0
        while at < len(stored):
            header = _HEADER.match(stored, at)
            if header is None:
                raise CorruptLog(f"stored output is malformed at byte {at}")
            stream, length = _STREAM[header["mark"]], int(header["length"], 16)
            data = stored[at + _HEADER_BYTES : at + _HEADER_BYTES + length]
            if len(data) != length:
                raise CorruptLog("stored output is cut short")
            output_log.append(stream, data)
            at += _HEADER_BYTES + length
        return output_log
