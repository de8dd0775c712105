"""What became of an execution, as the server tells it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Self, TypeVar

from attrs import field, frozen

from .errors import InvalidAnswer

_T = TypeVar("_T")


class Status(StrEnum):
    """How far an execution is. The first two are before its end."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    KILLED = "killed"

    @property
    def ended(self) -> bool:
        return self not in (Status.PENDING, Status.RUNNING)


@frozen(kw_only=True)
class Timings:
    """Milliseconds spent waiting for a slot, in setup, and running."""

    queue: float | None = None
    setup: float | None = None
    run: float | None = None


@frozen(kw_only=True)
class Usage:
    """What the program used."""

    cpu_seconds: float | None = None
    peak_memory_bytes: int | None = None


@frozen(kw_only=True)
class Truncated:
    """Whether a stream, or the `repr` of the last expression, was cut because it was too long."""

    stdout: bool = False
    stderr: bool = False
    result: bool = False


@frozen(kw_only=True)
class OutputFile:
    """A file that the run brought back; `size` in bytes."""

    path: str
    size: int


@frozen(kw_only=True)
class Result:
    """An execution's state; after its end, its outcome. What does not apply is None.

    `stdout` and `stderr` are text, invalid bytes replaced; an entry of a listing has neither. `result` is the
    `repr` of the last expression, of `eval` alone. `files` are there to be fetched; `files_truncated` says that
    some were left out. `raw` is the answer itself, with fields of newer servers.
    """

    execution_id: str
    status: Status
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
    files: tuple[OutputFile, ...] = ()
    files_truncated: bool = False
    raw: Mapping[str, Any] = field(factory=dict, repr=False, eq=False)

    @property
    def ended(self) -> bool:
        """It is over: nothing of it will change any more."""
        return self.status.ended

    @property
    def ok(self) -> bool:
        """The program ran to its end and exited with 0."""
        return self.status is Status.COMPLETED and self.exit_code == 0

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Read the Result object of an answer; raises InvalidAnswer if it is not one."""
        if not isinstance(data, dict):
            raise InvalidAnswer(f"the server's answer is not a result but {_excerpt(data)}")
        try:
            known: dict[str, Any] = {name: data[name] for name in _PLAIN if data.get(name) is not None}
            known |= {name: datetime.fromisoformat(data[name]) for name in _TIMES if data.get(name)}
            return cls(
                **known,
                status=Status(data["status"]),
                timings_ms=_part(Timings, data.get("timings_ms")),
                usage=_part(Usage, data.get("usage")),
                truncated=_part(Truncated, data.get("truncated")) or Truncated(),
                files=tuple(OutputFile(path=f["path"], size=f["size"]) for f in data.get("files") or ()),
                raw=data,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as problem:
            text = f"the server's answer is not a result: {problem!r} in {_excerpt(data)}"
            raise InvalidAnswer(text) from problem


_TIMES = ("created_at", "started_at", "finished_at")
_PLAIN = (
    *("execution_id", "stdout", "stderr", "exit_code", "error", "error_type", "error_line", "result"),
    *("duration_ms", "files_truncated"),
)


def _part(kind: type[_T], data: Mapping[str, Any] | None) -> _T | None:
    if data is None:
        return None
    return kind(**{name: value for name, value in data.items() if name in kind.__annotations__})


def _excerpt(data: object) -> str:
    text = repr(data)
    return text if len(text) <= 200 else text[:200] + "…"
