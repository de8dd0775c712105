"""The host's end of the wire to a supervisor. What comes from there may be hostile: it is bounded and checked."""

import binascii
import json
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Any

from attrs import asdict, define, field, filters, frozen

from pyexec.domain.output_files import UNSAFE, FileLimits
from pyexec.domain.output_log import Stream
from pyexec.errors import SandboxBroken
from pyexec.guest import collector, wire

FRAME_BYTES_MAX = 8 * 1024 * 1024
_PARTS = ("wire", "memory", "seccomp", "interpreter", "prestart", "program", "supervisor")
"""What a supervisor is made of, each after those that it imports."""
_HEADER = wire.HEADER
_STREAMS = {wire.STDOUT: Stream.STDOUT, wire.STDERR: Stream.STDERR}


@frozen(kw_only=True)
class Plan:
    """What the program will be, told ahead of the order to start it, so that all can be ready by then."""

    entrypoint: str
    args: tuple[str, ...]
    env: tuple[str, ...]
    evaluate: bool


@frozen(kw_only=True)
class Go:
    """The order to start the program. Limits in bytes and seconds. `output_files` are the patterns of what to send
    after its end."""

    timeout: float
    memory_bytes: int
    output_bytes: int
    output_files: tuple[str, ...]
    file_limits: FileLimits


@frozen
class Ready:
    """The supervisor waits for its one request; `python` is the interpreter's version."""

    python: str


@frozen
class Unpacked:
    """The archive lies in /work."""


@frozen
class Refused:
    """The supervisor could not unpack the archive (`disk_full`, `bad_archive`), or GO came too `late`."""

    code: str
    message: str


@frozen
class Started:
    """The program's process exists."""


@frozen
class Printed:
    """The program has printed these bytes."""

    stream: Stream
    data: bytes


@frozen
class Evaluated:
    """The next bytes of the last expression's repr, before the program's end is told."""

    data: bytes


@frozen(kw_only=True)
class Exited:
    """The program and all that it had started are gone. `reason` is `exit`, or the limit that ended it."""

    reason: str
    exit_code: int
    signalled: bool
    cpu_seconds: float
    peak_memory_bytes: int
    result_truncated: bool


@frozen
class FileBegins:
    """A file that the program has left; its contents follow."""

    path: str
    size: int


@frozen
class FileData:
    """The next bytes of the file that has begun."""

    data: bytes


@frozen
class Collected:
    """No more files come; `truncated` says whether some were left out."""

    truncated: bool


Frame = (
    Ready | Unpacked | Refused | Started | Printed | Evaluated | Exited | FileBegins | FileData | Collected
)


def command(*, standby: bool) -> tuple[str, ...]:
    """The container's command: the interpreter with the supervisor as its program. `standby` says whether another
    interpreter stands by for the program, or is started at the go-ahead."""
    texts = (text for part in _PARTS for text in (f"pyexec.guest.{part}", _source(part)))
    return ("python3", "-I", "-S", "-c", _source("bootstrap"), "on" if standby else "off", *texts)


@cache
def _source(module: str) -> str:
    """What travels into the container, as text."""
    return resources.files("pyexec.guest").joinpath(f"{module}.py").read_text("utf-8")


def archive_frame(data: bytes) -> bytes:
    """The next bytes of the archive; no bytes end it."""
    return _HEADER.pack(wire.ARCHIVE, len(data)) + data


def plan_frames(plan: Plan, stdin: bytes) -> bytes:
    """What the program will be, with the code that it needs in there, and its whole standard input."""
    document = asdict(plan, filter=filters.exclude("evaluate"))
    document["evaluator"] = _source("evaluator") if plan.evaluate else None
    payload = json.dumps(document).encode()
    return _HEADER.pack(wire.PLAN, len(payload)) + payload + _HEADER.pack(wire.STDIN, len(stdin)) + stdin


def go_frame(go: Go) -> bytes:
    """The go-ahead, with the code that the run needs after its end."""
    document = asdict(go, filter=filters.exclude("output_files", "file_limits"))
    document["collector"] = _source("collector") if go.output_files else None
    document["files"] = {"patterns": go.output_files, "unsafe": UNSAFE.pattern, **asdict(go.file_limits)}
    payload = json.dumps(document).encode()
    return _HEADER.pack(wire.GO, len(payload)) + payload


@define
class Decoder:
    """Turns the bytes of a supervisor's standard output into frames, however they are cut."""

    _buffer: bytearray = field(factory=bytearray)

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are complete with these bytes; raises `SandboxBroken` for what is no frame."""
        self._buffer += data
        while len(self._buffer) >= _HEADER.size:
            kind, length = _HEADER.unpack_from(self._buffer)
            if length > FRAME_BYTES_MAX:
                raise SandboxBroken(f"a frame claims {length} bytes")
            end = _HEADER.size + length
            if len(self._buffer) <= end:
                return
            payload = bytes(self._buffer[_HEADER.size : end])
            if self._buffer[end] != ord("\n"):
                raise SandboxBroken("a frame does not end where it says")
            del self._buffer[: end + 1]
            yield _frame(kind, payload)


def _frame(kind: bytes, payload: bytes) -> Frame:
    if kind in _STREAMS:
        return Printed(_STREAMS[kind], _bytes(payload))
    if kind == wire.RESULT:
        return Evaluated(_bytes(payload))
    if kind == collector.DATA:
        return FileData(_bytes(payload))
    if kind == wire.UNPACKED:
        return Unpacked()
    if kind == wire.STARTED:
        return Started()
    document = _document(payload)
    try:
        if kind == wire.READY:
            return Ready(_text(document["python"]))
        if kind == wire.REFUSED:
            return Refused(_text(document["code"]), _text(document["message"]))
        if kind == wire.EXIT:
            return _exited(document)
        if kind == collector.FILE:
            return FileBegins(_text(document["path"]), _count(document["size"]))
        if kind == collector.COLLECTED:
            return Collected(document["truncated"] is not False)
    except (KeyError, TypeError, ValueError) as error:
        raise SandboxBroken(f"a {kind!r} frame lacks what it must say") from error
    raise SandboxBroken(f"a frame has the unknown kind {kind!r}")


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
    )


def _document(payload: bytes) -> dict[str, Any]:
    try:
        document = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise SandboxBroken("a frame holds no JSON") from error
    if not isinstance(document, dict):
        raise SandboxBroken("a frame holds no object")
    return document


def _bytes(payload: bytes) -> bytes:
    try:
        return binascii.a2b_base64(payload)
    except ValueError as error:
        raise SandboxBroken("a frame of bytes is not base64") from error


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value.encode("utf-8", "replace").decode()  # JSON can spell half a surrogate pair, UTF-8 cannot


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**60:
        raise ValueError(value)
    return value


def _amount(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**60:
        raise ValueError(value)
    return value
