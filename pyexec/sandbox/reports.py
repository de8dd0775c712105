"""Decode what a program reports (guest/reports/channel.py): displays, the last expression's value, and its exception.

The code that reports is in the program's own process, so a hostile program can report anything. What is malformed is
dropped, and does not change how the run ends."""

from collections.abc import Generator, Iterator
from contextlib import suppress

from attrs import define, evolve, field

from pyexec.domain.crash import NAME_CHARACTERS, Crash, TracebackEntry, TracebackFrame, cut_message
from pyexec.domain.displays import (
    DISPLAYS_MAX,
    MIME_TYPES_MAX,
    binary_value,
    encoded_display,
    is_json_type,
    is_mime_type,
    json_value,
    text_value,
)
from pyexec.domain.json_slices import encoded_json
from pyexec.errors import SandboxBroken
from pyexec.guest.reports import channel
from pyexec.guest.wire import REPORT_BYTES_EXTRA

_HEADER_BYTES = 5
_NUMBER_MAX = 2**31
_TRACEBACK_BYTES_MAX = 64 * 1024
"""A larger report of an exception is used without its frames, because it is stored in the terminal event."""
_FIELDS_MAX = 10_000
"""Maximum number of fields in a report of an exception. guest/reports/exceptions.py sends fewer."""
_RELATIONS = {channel.CAUGHT: None, channel.CAUSE: "cause", channel.CONTEXT: "context"}

Field = tuple[bytes, str, bytes]
"""A field of a record: its kind, its name and its value."""


@define
class ReportReader:
    """Reads the reports of one run, which arrive in pieces of any size.

    `display_bytes` limits the displays together, as JSON."""

    display_bytes: int
    result: str | None = field(default=None, init=False)
    """The repr of the last expression."""
    result_truncated: bool = field(default=False, init=False)
    crash: Crash | None = field(default=None, init=False)
    """The exception that ended the main thread."""
    end_reported: bool = field(default=False, init=False)
    """True once the interpreter has reported that exception, or that there is none."""
    displays_truncated: bool = field(default=False, init=False)
    """True if at least one display, or a part of it, was dropped."""
    _displays: int = field(default=0, init=False)
    _received: int = field(default=0, init=False)
    _used: int = field(default=0, init=False)
    _buffer: bytearray = field(factory=bytearray, init=False)
    _malformed: bool = field(default=False, init=False)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Read the next bytes. Yield the displays that are now complete, encoded for the output log.

        Empty bytes follow some milliseconds of work, so that the caller can let other tasks run. Raises `SandboxBroken`
        if the supervisor sends more than it may."""
        self._received += len(data)
        if self._received > self.display_bytes + REPORT_BYTES_EXTRA:
            raise SandboxBroken(
                f"the sandbox reported more than {self.display_bytes + REPORT_BYTES_EXTRA} bytes"
            )
        if not self._malformed:
            self._buffer += data
        while len(self._buffer) >= _HEADER_BYTES:
            end = _HEADER_BYTES + int.from_bytes(self._buffer[1:_HEADER_BYTES], "big")
            if len(self._buffer) < end:
                return
            with memoryview(self._buffer) as received:
                kind, payload = bytes(received[:1]), bytes(received[_HEADER_BYTES:end])
            del self._buffer[:end]
            yield from self._read(kind, payload)

    def finish(self, *, cut: bool) -> None:
        """Read the end. `cut` is True if the supervisor has dropped something."""
        if cut or self._buffer:
            self.displays_truncated = True

    def _read(self, kind: bytes, payload: bytes) -> Iterator[bytes]:
        if kind == channel.DISPLAY:
            yield from self._display(payload)
        elif kind == channel.DROPPED:
            self.displays_truncated = True
        elif kind in (channel.RESULT, channel.RESULT_CUT):
            self.result = payload[: channel.RESULT_BYTES_MAX].decode(
                "utf-8", "ignore"
            )  # may end within a character
            self.result_truncated = kind == channel.RESULT_CUT or len(payload) > channel.RESULT_BYTES_MAX
        elif kind == channel.EXCEPTION:
            with suppress(ValueError, IndexError):
                self.crash = read_crash(payload) if payload else None
                self.end_reported = True
        else:
            self._malformed = self.displays_truncated = True
            self._buffer.clear()

    def _display(self, payload: bytes) -> Iterator[bytes]:
        """Yield a display, if it is valid and the run may have it. Empty bytes come before it, as in `feed`."""
        encoded, complete = yield from read_display(payload)
        self.displays_truncated |= not complete
        if encoded is None:
            return
        if self._used + len(encoded) > self.display_bytes or self._displays >= DISPLAYS_MAX:
            self.displays_truncated = True
            return
        self._used += len(encoded)
        self._displays += 1
        yield encoded


def read_display(payload: bytes) -> Generator[bytes, None, tuple[bytes | None, bool]]:
    """Encode the valid part of a display. Yield empty bytes after some milliseconds of work.

    Return the display, which is None if nothing of it is valid, and whether that is all of it."""
    data: dict[str, list[bytes]] = {}
    metadata = [b"{}"]
    complete = True
    try:
        for kind, name, value in _fields(payload, MIME_TYPES_MAX + 1):
            mime = name.lower()  # as the guest sends it; clients look for names in lower case
            if kind == channel.METADATA:
                found = yield from _collect(encoded_json(value))
                metadata = found if found[0].startswith(b"{") else [b"{}"]
                continue
            is_new = mime not in data and len(data) < MIME_TYPES_MAX
            if is_new and is_mime_type(mime):
                with suppress(ValueError):
                    data[mime] = yield from _collect(_value(kind, mime, value))
            complete = complete and is_new and mime in data
    except ValueError:
        complete = False
    return encoded_display(data, metadata) if data else None, complete


def _collect(slices: Iterator[bytes]) -> Generator[bytes, None, list[bytes]]:
    """Return the slices that are not empty. Yield empty bytes between slices."""
    collected: list[bytes] = []
    for each in slices:
        if collected or not each:
            yield b""
        if each:
            collected.append(each)
    return collected


def _value(kind: bytes, mime: str, value: bytes) -> Iterator[bytes]:
    if kind == channel.BINARY:
        return binary_value(mime, value)
    if kind == channel.TEXT:
        return encoded_json(value) if is_json_type(mime) else text_value(mime, value)
    if kind == channel.JSON:
        return json_value(mime, value)
    raise ValueError(f"a field has the unknown kind {kind!r}")


def read_crash(payload: bytes) -> Crash:
    """Return the exception of a record; raise `ValueError` or `IndexError` if it is malformed."""
    entries: list[TracebackEntry] = []
    frames: list[list[TracebackFrame]] = []
    own_line = None
    for kind, name, value in _fields(payload, _FIELDS_MAX):
        if kind in _RELATIONS:
            relation = _RELATIONS[kind] if entries else None
            message = cut_message(value.decode("utf-8", "replace").strip())
            entries.append(TracebackEntry(type=name[:NAME_CHARACTERS], message=message, relation=relation))
            frames.append([])
        elif kind == channel.FRAME:
            frames[-1].append(_frame(name, value))
        elif kind == channel.OMITTED:
            entries[-1] = evolve(entries[-1], frames_omitted=_number(value))
        elif kind == channel.OWN_LINE:
            own_line = _number(value)
    last = entries[-1]
    traceback = None
    if len(payload) <= _TRACEBACK_BYTES_MAX:
        traceback = tuple(
            evolve(entry, frames=tuple(own)) for entry, own in zip(entries, frames, strict=True)
        )
    return Crash(
        error_type=last.type,
        error=last.message or last.type,
        error_line=own_line,
        traceback=traceback,
    )


def _frame(path: str, value: bytes) -> TracebackFrame:
    line, function, code = value.decode("utf-8", "replace").split("\0")
    return TracebackFrame(
        file=path, line=_number(line.encode()), function=function or None, code=code or None
    )


def _number(text: bytes) -> int:
    number = int(text[:12])
    if not 0 <= number < _NUMBER_MAX:
        raise ValueError(number)
    return number


def _fields(payload: bytes, fields_max: int) -> Iterator[Field]:
    """Yield the fields of a record; raise `ValueError` if it is malformed, or has more than `fields_max` fields."""
    at = number = 0
    while at < len(payload):
        number += 1
        if number > fields_max:
            raise ValueError(f"a record has more than {fields_max} fields")
        name_end = at + 3 + int.from_bytes(payload[at + 1 : at + 3], "big")
        start = name_end + 4
        end = start + int.from_bytes(payload[name_end:start], "big")
        if end > len(payload):
            raise ValueError("a field is cut short")
        yield payload[at : at + 1], payload[at + 3 : name_end].decode("utf-8", "replace"), payload[start:end]
        at = end
