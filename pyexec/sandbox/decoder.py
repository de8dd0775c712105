"""Decode the frames that a sandbox sends. They may come from a hostile program, so each is limited and checked."""

import binascii
import json
from collections.abc import Iterator
from typing import Any

from attrs import define, field

from pyexec.domain.events import Usage
from pyexec.domain.output_files import SkippedPattern, SkipReason
from pyexec.domain.output_log import Stream
from pyexec.errors import SandboxBroken
from pyexec.guest import collector, session_frames, wire
from pyexec.sandbox.protocol import (
    Exited,
    FileChunk,
    FileHeader,
    FilesCollected,
    FileSkipped,
    Frame,
    OutputChunk,
    Ready,
    Rejected,
    ReportChunk,
    Retired,
    Started,
    TransferFrame,
    Unpacked,
)
from pyexec.sandbox.session_protocol import (
    CellEnded,
    LineRefused,
    Restarted,
    SessionFrame,
    Synced,
    TransferEnded,
)

FRAME_BYTES_MAX = 8 * 1024 * 1024
JSON_BYTES_MAX = 64 * 1024
"""A supervisor sends less than 16 KiB of JSON in a frame. 8 MiB can become 200 MB of objects, and block the server for
more than a second."""
NUMBERS_MAX = 2**53
"""Larger integers are not exact in the JSON parsers of some clients."""
_CODE_CHARACTERS, _MESSAGE_CHARACTERS = 64, 1000
"""Longer texts are cut: they come into events, answers and the server's log."""
_HEADER = wire.HEADER
_COLLECTED_KINDS = {collector.FILE, collector.SKIPPED, collector.COLLECTED}
_STREAMS = {wire.STDOUT: Stream.STDOUT, wire.STDERR: Stream.STDERR}


@define
class Decoder:
    """Decodes frames from a supervisor's standard output, which arrives in pieces of any size."""

    _buffer: bytearray = field(factory=bytearray)
    json_bytes: int = 0
    """Bytes of JSON in all frames so far."""

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
            if self._buffer[end] != ord("\n"):
                raise SandboxBroken("a frame does not end with a newline")
            with memoryview(self._buffer)[_HEADER.size : end] as payload:
                frame = decode_frame(kind, payload)
            del self._buffer[: end + 1]
            if not _has_data(frame):
                self.json_bytes += length
            yield frame


def _has_data(frame: Frame) -> bool:
    """Return True if the frame has bytes of output, of reports or of files, not JSON."""
    content = frame.frame if isinstance(frame, TransferFrame) else frame
    return isinstance(content, OutputChunk | ReportChunk | FileChunk)


def decode_frame(kind: bytes, payload: bytes | memoryview) -> Frame:
    """Decode a frame of this kind (one byte). Raise `SandboxBroken` if the payload or the kind is invalid."""
    if kind in _STREAMS:
        return OutputChunk(_STREAMS[kind], _bytes(payload))
    if kind == wire.REPORT:
        return ReportChunk(_bytes(payload))
    if kind == collector.DATA:
        return FileChunk(_bytes(payload))
    if kind == session_frames.TRANSFER:
        return _transfer_frame(payload)
    if kind == wire.UNPACKED:
        return Unpacked()
    document = _document(payload)
    try:
        if kind == wire.STARTED:
            return _started(document)
        if kind == wire.READY:
            return Ready(_text(document.get("python", ""))[:_CODE_CHARACTERS])
        if kind == wire.RETIRED:
            return Retired(_text(document["reason"])[:_MESSAGE_CHARACTERS])
        if kind == wire.REJECTED:
            code, message = _text(document["code"]), _text(document["message"])
            return Rejected(code[:_CODE_CHARACTERS], message[:_MESSAGE_CHARACTERS])
        if kind == wire.EXIT:
            return _exited(document)
        if kind == session_frames.SESSION:
            return _session_frame(document)
        if kind == collector.FILE:
            return FileHeader(_text(document["path"]), _count(document["size"]))
        if kind == collector.COLLECTED:
            return _files_collected(document)
        if kind == collector.SKIPPED:
            return FileSkipped(_text(document["path"]), SkipReason(document["reason"]))
    except (KeyError, TypeError, ValueError) as error:
        raise SandboxBroken(f"a {kind!r} frame has missing or invalid fields") from error
    raise SandboxBroken(f"a frame has an unknown kind: {kind!r}")


def _transfer_frame(payload: bytes | memoryview) -> TransferFrame:
    if len(payload) < _HEADER.size:
        raise SandboxBroken("a frame of a transfer has no header")
    kind, number = _HEADER.unpack_from(payload)
    content = payload[_HEADER.size :]
    if kind == collector.DATA:
        return TransferFrame(number, FileChunk(bytes(content)))
    frame = decode_frame(kind, content) if kind in _COLLECTED_KINDS else None
    if not isinstance(frame, FileHeader | FileSkipped | FilesCollected):
        raise SandboxBroken(f"a transfer has a frame of the kind {kind!r}")
    return TransferFrame(number, frame)


def _started(document: dict[str, Any]) -> Started:
    """Return the decoded STARTED frame. Supervisors of earlier versions send it without fields."""
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


def _session_frame(document: dict[str, Any]) -> SessionFrame:
    match document["event"]:
        case "cell_ended":
            return _cell_ended(document)
        case "synced":
            return Synced(
                token=_text(document["token"]),
                generation=_count(document["generation"]),
                cell_nonce=_optional_text(document["cell"]),
                ended=document["ended"] is True,
            )
        case "restarted":
            return Restarted(_text(document["reason"])[:_CODE_CHARACTERS])
        case "transfer_ended":
            error = _optional_text(document["error"])
            return TransferEnded(
                id=_count(document["id"]),
                error=None if error is None else error[:_CODE_CHARACTERS],
                message=_text(document["message"])[:_MESSAGE_CHARACTERS],
            )
        case "error":
            return LineRefused(_text(document["message"])[:_MESSAGE_CHARACTERS])
    raise ValueError("unknown event")


def _cell_ended(document: dict[str, Any]) -> CellEnded:
    exited = _exited(document)
    return CellEnded(
        nonce=_text(document["nonce"]),
        reason=exited.reason,
        exit_code=exited.exit_code,
        signalled=exited.signalled,
        usage=Usage(cpu_seconds=exited.cpu_seconds, peak_memory_bytes=exited.peak_memory_bytes),
        interpreter_restarted=document["interpreter_restarted"] is True,
        result_truncated=exited.result_truncated,
        process_limit=exited.process_limit,
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


def _document(payload: bytes | memoryview) -> dict[str, Any]:
    if len(payload) > JSON_BYTES_MAX:
        raise SandboxBroken(f"a frame has {len(payload)} bytes of JSON; the limit is {JSON_BYTES_MAX}")
    try:
        document = json.loads(bytes(payload) or b"{}")
    except (ValueError, RecursionError) as error:
        raise SandboxBroken("a frame does not contain valid JSON") from error
    if not isinstance(document, dict):
        raise SandboxBroken("a frame does not contain a JSON object")
    return document


def _bytes(payload: bytes | memoryview) -> bytes:
    try:
        # Otherwise a frame of any size could decode to no bytes, which no limit on output counts.
        return binascii.a2b_base64(payload, strict_mode=True)
    except ValueError as error:
        raise SandboxBroken("a data frame is not valid base64") from error


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value.encode("utf-8", "replace").decode()  # JSON allows half a surrogate pair, UTF-8 does not


def _optional_text(value: object) -> str | None:
    return None if value is None else _text(value)


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < NUMBERS_MAX:
        raise ValueError(value)
    return value


def _amount(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < NUMBERS_MAX:
        raise ValueError(value)
    return value
