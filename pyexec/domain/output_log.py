"""The output of an execution: first what its setup printed, then both streams of the program, in order of arrival."""

import re
from bisect import bisect_right
from collections.abc import Iterator
from enum import StrEnum
from typing import Self

from pyexec.errors import CorruptLog


class Stream(StrEnum):
    """One of the program's two output streams, or the output of the setup."""

    STDOUT = "stdout"
    STDERR = "stderr"
    SETUP = "setup"


_MARK = {Stream.SETUP: b"0", Stream.STDOUT: b"1", Stream.STDERR: b"2"}
_STREAM = {mark: stream for stream, mark in _MARK.items()}
_HEADER = re.compile(rb"(?P<mark>[012])(?P<length>[0-9a-f]{8})")


class OutputLog:
    """The bytes of all streams in order of arrival, as segments: consecutive bytes of the same stream.

    An offset counts the bytes of all streams together. A reader that stops at an offset can continue there later, and
    gets each byte exactly once."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._streams: list[Stream] = []
        self._ends: list[int] = []

    def __len__(self) -> int:
        return len(self._data)

    def append(self, stream: Stream, data: bytes) -> None:
        """Add bytes that `stream` has just produced."""
        if not data:
            return
        self._data += data
        if self._streams and self._streams[-1] is stream:
            self._ends[-1] = len(self._data)
        else:
            self._streams.append(stream)
            self._ends.append(len(self._data))

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

    def since(self, offset: int, until: int | None = None) -> Iterator[tuple[Stream, bytes]]:
        """Yield the segments from one offset to another, or to the end."""
        start, stop = offset, len(self) if until is None else until
        for index in range(bisect_right(self._ends, offset), len(self._ends)):
            if start >= stop:
                return
            yield self._streams[index], bytes(self._data[start : min(stop, self._ends[index])])
            start = self._ends[index]

    def bytes_of(self, stream: Stream) -> bytes:
        """Return all bytes of one stream."""
        return b"".join(data for which, data in self.since(0) if which is stream)

    def text_of(self, stream: Stream) -> str:
        """Return one stream as UTF-8 text, with invalid bytes replaced."""
        return self.bytes_of(stream).decode("utf-8", "replace")

    def encode(self, size: int | None = None) -> bytes:
        """Encode all bytes, or the first `size` bytes, for storage.

        Each segment is its stream's mark, its length in eight hex digits, and its bytes."""
        return b"".join(_MARK[stream] + b"%08x" % len(data) + data for stream, data in self.since(0, size))

    @classmethod
    def decode(cls, stored: bytes) -> Self:
        """Return the output log that was encoded; raise `CorruptLog` if the bytes are malformed."""
        output_log, at = cls(), 0
        while at < len(stored):
            header = _HEADER.match(stored, at)
            if header is None:
                raise CorruptLog(f"stored output is malformed at byte {at}")
            stream, length = _STREAM[header["mark"]], int(header["length"], 16)
            data = stored[at + 9 : at + 9 + length]
            if len(data) != length:
                raise CorruptLog("stored output is cut short")
            output_log.append(stream, data)
            at += 9 + length
        return output_log
