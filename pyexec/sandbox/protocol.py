"""The server's side of the protocol with a supervisor (see guest/wire.py).

Frames from a sandbox may come from a hostile program, so the decoder limits and checks them."""

import binascii
import json
from collections.abc import Iterator
from typing import Any

from attrs import asdict, define, field, filters, frozen

from pyexec.domain.output_files import (
    UNSAFE,
    FileLimits,
    SkippedPattern,
    SkipReason,
    normalize_patterns,
)
from pyexec.domain.output_log import Stream
from pyexec.errors import SandboxBroken
from pyexec.guest import collector, wire
from pyexec.sandbox.guest_source import collector_modules, source

FRAME_BYTES_MAX = 8 * 1024 * 1024
NUMBERS_MAX = 2**53
"""Larger integers are not exact in the JSON parsers of some clients."""
_HEADER = wire.HEADER
KILL_FRAME = _HEADER.pack(wire.KILL, 0)
"""The request to end the program at once, as at a limit."""
_STREAMS = {wire.STDOUT: Stream.STDOUT, wire.STDERR: Stream.STDERR}


@frozen(kw_only=True)
class ProgramPlan:
    """Describes the program. It is sent before the start signal, so that the supervisor can prepare the start."""

    entrypoint: str
    args: tuple[str, ...]
    env: tuple[str, ...]
    evaluate: bool


@frozen(kw_only=True)
class StartSignal:
    """Tells the supervisor to start the program, with its limits in seconds and bytes.

    `nonce` is that of the run's `running` event, and comes back in `Started`. `cpu_seconds` limits the processor time;
    None is no limit. `output_files` are patterns for the files to return after the program's end. With `reuse`, the
    supervisor then cleans the sandbox."""

    nonce: str
    timeout: float
    memory_bytes: int
    disk_bytes: int
    output_bytes: int
    output_files: tuple[str, ...]
    file_limits: FileLimits
    reuse: bool = False
    cpu_seconds: float | None = None


@frozen
class Ready:
    """The sandbox waits for a program. It is new, or as it was when it was new."""


@frozen
class Retired:
    """The sandbox cannot take another program, because it is not as it was when it was new."""

    reason: str


@frozen
class Unpacked:
    """The archive is unpacked in /work."""


@frozen
class Rejected:
    """The supervisor rejected the archive (`disk_full`, `bad_archive`) or the start signal (`late`, `abandoned`)."""

    code: str
    message: str


@frozen
class Started:
    """The program's process exists. `nonce` is that of its start signal; None from an earlier version's supervisor. The
    other fields are what the container had used before."""

    nonce: str | None = None
    cpu_seconds: float = 0.0
    memory_bytes: int = 0


@frozen
class OutputChunk:
    """The next bytes that the program has printed."""

    stream: Stream
    data: bytes


@frozen
class ResultChunk:
    """The next bytes of the last expression's repr. They come before `Exited`."""

    data: bytes


@frozen(kw_only=True)
class Exited:
    """The program has ended, and all its processes are dead. `reason` is `exit`, or the limit that ended it.

    `process_limit` is the limit on processes and threads if the program has reached it."""

    reason: str
    exit_code: int
    signalled: bool
    cpu_seconds: float
    peak_memory_bytes: int
    result_truncated: bool
    process_limit: int | None


@frozen
class FileHeader:
    """The path and size of an output file; its content follows."""

    path: str
    size: int


@frozen
class FileChunk:
    """The next bytes of the current file."""

    data: bytes


@frozen
class FileSkipped:
    """A file, directory or link that a pattern matches, but that is not sent."""

    path: str
    reason: SkipReason


@frozen
class FilesCollected:
    """No more files follow. The fields are those of `OutputFiles`."""

    truncated: bool
    skipped_truncated: bool = False
    skipped_patterns: tuple[SkippedPattern, ...] = ()


Frame = (
    Ready
    | Retired
    | Unpacked
    | Rejected
    | Started
    | OutputChunk
    | ResultChunk
    | Exited
    | FileHeader
    | FileChunk
    | FileSkipped
    | FilesCollected
)


def archive_frame(data: bytes) -> bytes:
    """Encode the next bytes of the archive. An empty frame ends it."""
    return _HEADER.pack(wire.ARCHIVE, len(data)) + data


def plan_frames(plan: ProgramPlan, stdin: bytes) -> bytes:
    """Encode the plan, with the evaluator's code if the run needs it, and the whole standard input."""
    document = asdict(plan, filter=filters.exclude("evaluate"))
    document["evaluator"] = source("evaluator") if plan.evaluate else None
    payload = json.dumps(document).encode()
    return _HEADER.pack(wire.PLAN, len(payload)) + payload + _HEADER.pack(wire.STDIN, len(stdin)) + stdin


def start_frame(signal: StartSignal) -> bytes:
    """Encode the start signal, with the collector's code if the run wants output files."""
    document = asdict(signal, filter=filters.exclude("output_files", "file_limits"))
    document["collector"] = collector_modules() if signal.output_files else None
    document["files"] = {
        "patterns": normalize_patterns(signal.output_files),
        "unsafe": UNSAFE.pattern,
        **asdict(signal.file_limits),
    }
    payload = json.dumps(document).encode()
    return _HEADER.pack(wire.START, len(payload)) + payload


@define
class Decoder:
    """Decodes frames from a supervisor's standard output, which arrives in pieces of any size."""

    _buffer: bytearray = field(factory=bytearray)

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Add bytes; yield the frames that are now complete. Raise `SandboxBroken` if a frame is invalid."""
        self._buffer += data
        while len(self._buffer) >= _HEADER.size:
            kind, length = _HEADER.unpack_from(self._buffer)
            if length > FRAME_BYTES_MAX:
                raise SandboxBroken(f"a frame has {length} bytes; the limit is {FRAME_BYTES_MAX}")
            end = _HEADER.size + length
            if len(self._buffer) <= end:
                return
            payload = bytes(self._buffer[_HEADER.size : end])
            if self._buffer[end] != ord("\n"):
                raise SandboxBroken("a frame does not end with a newline")
            del self._buffer[: end + 1]
            yield _frame(kind, payload)


def _frame(kind: bytes, payload: bytes) -> Frame:
    if kind in _STREAMS:
        return OutputChunk(_STREAMS[kind], _bytes(payload))
    if kind == wire.RESULT:
        return ResultChunk(_bytes(payload))
    if kind == collector.DATA:
        return FileChunk(_bytes(payload))
    if kind == wire.UNPACKED:
        return Unpacked()
    document = _document(payload or b"{}")
    try:
        if kind == wire.STARTED:
            return _started(document)
        if kind == wire.READY:
            return Ready()
        if kind == wire.RETIRED:
            return Retired(_text(document["reason"]))
        if kind == wire.REJECTED:
            return Rejected(_text(document["code"]), _text(document["message"]))
        if kind == wire.EXIT:
            return _exited(document)
        if kind == collector.FILE:
            return FileHeader(_text(document["path"]), _count(document["size"]))
        if kind == collector.COLLECTED:
            return _files_collected(document)
        if kind == collector.SKIPPED:
            return FileSkipped(_text(document["path"]), SkipReason(document["reason"]))
    except (KeyError, TypeError, ValueError) as error:
        raise SandboxBroken(f"a {kind!r} frame has missing or invalid fields") from error
    raise SandboxBroken(f"a frame has an unknown kind: {kind!r}")


def _started(document: dict[str, Any]) -> Started:
    """Read a frame that is empty from a supervisor of an earlier version."""
    return Started(
        nonce=_text(document["nonce"]) if "nonce" in document else None,
        cpu_seconds=_amount(document.get("cpu_seconds", 0)),
        memory_bytes=_count(document.get("memory_bytes", 0)),
    )


def _exited(document: dict[str, Any]) -> Exited:
    exit_code = _count(document["exit_code"])
    if exit_code > 255:
        raise ValueError(exit_code)
    return Exited(
        reason=_text(document["reason"]),
        exit_code=exit_code,
        signalled=bool(document["signalled"]),
        cpu_seconds=_amount(document["cpu_seconds"]),
        peak_memory_bytes=int(_amount(document["peak_memory_bytes"])),
        result_truncated=document["result_truncated"] is True,
        process_limit=None if document.get("process_limit") is None else _count(document["process_limit"]),
    )


def _files_collected(document: dict[str, Any]) -> FilesCollected:
    return FilesCollected(
        truncated=document["truncated"] is not False,
        # A collector that an earlier version started reports no skipped files.
        skipped_truncated=document.get("skipped_truncated", False) is not False,
        skipped_patterns=tuple(
            SkippedPattern(number=_count(number), reason=SkipReason(reason))
            for number, reason in document.get("patterns", ())
        ),
    )


def _document(payload: bytes) -> dict[str, Any]:
    try:
        document = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise SandboxBroken("a frame does not contain valid JSON") from error
    if not isinstance(document, dict):
        raise SandboxBroken("a frame does not contain a JSON object")
    return document


def _bytes(payload: bytes) -> bytes:
    try:
        return binascii.a2b_base64(payload)
    except ValueError as error:
        raise SandboxBroken("a data frame is not valid base64") from error


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value.encode("utf-8", "replace").decode()  # JSON allows half a surrogate pair, UTF-8 does not


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < NUMBERS_MAX:
        raise ValueError(value)
    return value


def _amount(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < NUMBERS_MAX:
        raise ValueError(value)
    return value
