"""The server's side of the protocol with a supervisor (see guest/wire.py).

This module has what the server sends, and the frames that it receives, which decoder.py decodes."""

import json

from attrs import asdict, frozen

from pyexec.domain.output_files import UNSAFE, FileLimits, SkippedPattern, SkipReason, normalize_patterns
from pyexec.domain.output_log import Stream
from pyexec.guest import wire
from pyexec.sandbox.guest_source import collector_modules
from pyexec.sandbox.session_protocol import SessionFrame

_HEADER = wire.HEADER
KILL_FRAME = _HEADER.pack(wire.KILL, 0)
"""The frame that requests the end of the program at once, as at a limit."""


@frozen(kw_only=True)
class ProgramPlan:
    """Describes the program. It is sent before the start signal, so that the supervisor can prepare the start."""

    entrypoint: str
    args: tuple[str, ...]
    env: tuple[str, ...]
    evaluate: bool
    display_bytes: int | None = None
    """The limit of the displays; None if the program reports nothing."""


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
    reuse: bool
    cpu_seconds: float | None


@frozen
class Ready:
    """The sandbox waits for a program. It is new, or has been cleaned.

    `python` is the version of its Python."""

    python: str = ""


@frozen
class Retired:
    """The sandbox cannot take another program, because it could not be restored to its initial state."""

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
class ReportChunk:
    """The next bytes of what the program reports (reports.py)."""

    data: bytes


@frozen(kw_only=True)
class Exited:
    """The program has ended, and all its processes are dead. `reason` is `exit`, or the limit that ended it.

    `process_limit` is the limit on processes and threads if the program has reached it. `result_truncated` is true if
    the supervisor has dropped a part of what the program reported. `interpreter_restarted` is true if a session has a
    new interpreter because of this cell."""

    reason: str
    exit_code: int
    signalled: bool
    cpu_seconds: float
    peak_memory_bytes: int
    result_truncated: bool
    process_limit: int | None
    interpreter_restarted: bool = False


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


@frozen
class TransferFrame:
    """A frame of a transfer of files of a session."""

    id: int
    frame: FileHeader | FileChunk | FileSkipped | FilesCollected


Frame = (
    Ready
    | Retired
    | Unpacked
    | Rejected
    | Started
    | OutputChunk
    | ReportChunk
    | Exited
    | FileHeader
    | FileChunk
    | FileSkipped
    | FilesCollected
    | TransferFrame
    | SessionFrame
)


def archive_frame(data: bytes) -> bytes:
    """Encode the next bytes of the archive. An empty frame ends it."""
    return _HEADER.pack(wire.ARCHIVE, len(data)) + data


def plan_frames(plan: ProgramPlan, stdin: bytes) -> bytes:
    """Encode the plan and the whole standard input."""
    document = {
        "entrypoint": plan.entrypoint,
        "args": plan.args,
        "env": plan.env,
        "evaluate": plan.evaluate,
        "display_bytes": plan.display_bytes,
    }
    payload = json.dumps(document).encode()
    return _HEADER.pack(wire.PLAN, len(payload)) + payload + _HEADER.pack(wire.STDIN, len(stdin)) + stdin


def start_frame(signal: StartSignal) -> bytes:
    """Encode the start signal, with the collector's code if the run wants output files."""
    document = {
        "nonce": signal.nonce,
        "timeout": signal.timeout,
        "memory_bytes": signal.memory_bytes,
        "disk_bytes": signal.disk_bytes,
        "output_bytes": signal.output_bytes,
        "reuse": signal.reuse,
        "cpu_seconds": signal.cpu_seconds,
        "collector": None,
    }
    if signal.output_files:
        document["collector"] = collector_modules()
        document["files"] = {
            "patterns": normalize_patterns(signal.output_files),
            "unsafe": UNSAFE.pattern,
            **asdict(signal.file_limits),
        }
    payload = json.dumps(document).encode()
    return _HEADER.pack(wire.START, len(payload)) + payload
