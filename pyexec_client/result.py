"""The result of an execution, as the server returns it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Self, TypeVar

from attrs import field, frozen

from .display import Display
from .errors import reading

_T = TypeVar("_T")


class Status(StrEnum):
    """The status of an execution. `pending` and `running` are before its end, the others are final."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    KILLED = "killed"

    @property
    def ended(self) -> bool:
        """Return True if this status is final."""
        return self not in (Status.PENDING, Status.RUNNING)


@frozen(kw_only=True)
class Timings:
    """Milliseconds spent in the queue, in setup, and running."""

    queue: float | None = None
    setup: float | None = None
    run: float | None = None


@frozen(kw_only=True)
class Usage:
    """CPU time and memory that the program used."""

    cpu_seconds: float | None = None
    peak_memory_bytes: int | None = None


@frozen(kw_only=True)
class Truncated:
    """Flags for texts that were cut because they exceed a limit of the server."""

    stdout: bool = False
    stderr: bool = False
    result: bool = False
    displays: bool = False


@frozen(kw_only=True)
class TracebackFrame:
    """A line of code that an exception passed. The place of a syntax error has no function."""

    file: str
    line: int
    function: str | None = None
    code: str | None = None


@frozen(kw_only=True)
class TracebackEntry:
    """An exception with its frames, outermost first.

    `relation` says how it came from the entry before: that one is its `cause`, or it was raised in the `context` of
    its handling. `frames_omitted` counts frames in the middle.
    """

    type: str
    message: str
    relation: str | None = None
    frames: tuple[TracebackFrame, ...] = ()
    frames_omitted: int = 0

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Convert the JSON object of a response."""
        frames = (_part(TracebackFrame, frame) for frame in data.get("frames") or ())
        return cls(
            type=data["type"],
            message=data["message"],
            relation=data.get("relation"),
            frames=tuple(frame for frame in frames if frame is not None),
            frames_omitted=data.get("frames_omitted") or 0,
        )


@frozen(kw_only=True)
class OutputFile:
    """An output file; `size` is in bytes."""

    path: str
    size: int


@frozen(kw_only=True)
class SkippedFile:
    """A file that was not returned, or a pattern of `output_files` for which files are missing.

    Either `path` or `pattern` is None. `reason` is a code, such as `no_match`, `link_outside` or `too_large`; newer
    servers may send other codes.
    """

    path: str | None = None
    pattern: str | None = None
    reason: str


@frozen(kw_only=True)
class Result:
    """The state of an execution and, once it has ended, its result. Fields that do not apply are None.

    - `tenant`: the tenant of the token that was sent with the code, if the server requires tokens
    - `session_id`: the session, if the execution is a cell
    - `entrypoint`: the file that runs
    - `stdout`, `stderr`: text, with invalid UTF-8 replaced; empty in the results of `list`
    - `result`: the `repr` of the last expression (only `eval`)
    - `displays`: what a notebook would show (`eval`, and with `capture_displays`)
    - `traceback`: the exception that ended the program, after those that led to it (as for `displays`)
    - `files`: the output files, ready for `Client.file` and `Client.files`
    - `files_truncated`: True if output files are missing, for example because they exceed the size limit
    - `files_skipped`: what `output_files` asked for but did not get, with the reasons
    - `files_skipped_truncated`: True if more files were skipped than `files_skipped` contains
    - `interpreter_restarted`: True if the session got a new interpreter, so that its variables are lost
    - `raw`: the JSON object of the response, including fields that only newer servers send
    """

    execution_id: str
    status: Status
    tenant: str | None = None
    session_id: str | None = None
    entrypoint: str | None = None
    stdout: str = ""
    stderr: str = ""
    exit_code: int | None = None
    error: str | None = None
    error_type: str | None = None
    error_line: int | None = None
    result: str | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    duration_ms: float | None = None
    timings_ms: Timings | None = None
    usage: Usage | None = None
    truncated: Truncated = Truncated()
    displays: tuple[Display, ...] = ()
    traceback: tuple[TracebackEntry, ...] = ()
    files: tuple[OutputFile, ...] = ()
    files_truncated: bool = False
    files_skipped: tuple[SkippedFile, ...] = ()
    files_skipped_truncated: bool = False
    interpreter_restarted: bool = False
    raw: Mapping[str, Any] = field(factory=dict, repr=False, eq=False)

    @property
    def ended(self) -> bool:
        """Return True if the execution has ended. A result that has ended does not change."""
        return self.status.ended

    @property
    def ok(self) -> bool:
        """Return True if the program exited with code 0."""
        return self.status is Status.COMPLETED and self.exit_code == 0

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Convert the JSON object of a response. Raise InvalidAnswer if it is not a result."""
        with reading("a result", data):
            known: dict[str, Any] = {name: data[name] for name in _PLAIN if data.get(name) is not None}
            known |= {name: datetime.fromisoformat(data[name]) for name in _TIMES if data.get(name)}
            return cls(
                **known,
                status=Status(data["status"]),
                timings_ms=_part(Timings, data.get("timings_ms")),
                usage=_part(Usage, data.get("usage")),
                truncated=_part(Truncated, data.get("truncated")) or Truncated(),
                displays=tuple(Display.from_json(each) for each in data.get("displays") or ()),
                traceback=tuple(TracebackEntry.from_json(each) for each in data.get("traceback") or ()),
                files=tuple(OutputFile(path=f["path"], size=f["size"]) for f in data.get("files") or ()),
                files_skipped=tuple(
                    SkippedFile(path=f.get("path"), pattern=f.get("pattern"), reason=f["reason"])
                    for f in data.get("files_skipped") or ()
                ),
                raw=data,
            )


_TIMES = ("created_at", "started_at", "finished_at")
_PLAIN = (
    *(
        "execution_id",
        "tenant",
        "session_id",
        "entrypoint",
        "stdout",
        "stderr",
        "exit_code",
        "error",
        "error_type",
        "error_line",
        "result",
    ),
    *("duration_ms", "files_truncated", "files_skipped_truncated", "interpreter_restarted"),
)


def _part(kind: type[_T], data: Mapping[str, Any] | None) -> _T | None:
    if data is None:
        return None
    return kind(**{name: value for name, value in data.items() if name in kind.__annotations__})
