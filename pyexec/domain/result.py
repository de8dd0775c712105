"""The result of an execution as callers see it (docs/api.md). Fields that do not apply are None here, and are left out
of the response."""

from datetime import datetime

from attrs import field, frozen

from pyexec.domain.events import Failed, FailureType, Finished, Usage
from pyexec.domain.execution import Execution, Status
from pyexec.domain.field_docs import described
from pyexec.domain.ids import ID_PATTERN
from pyexec.domain.output_files import OutputFile, OutputFiles
from pyexec.domain.output_log import OutputLog, Stream

ID_FIELD = described("The execution's id.", "exe_0190a2b4c6d87e1f9a0b1c2d3e4f5061", pattern=ID_PATTERN)


@frozen(kw_only=True)
class Timings:
    """The duration of each phase, in whole milliseconds."""

    queue: int = field(metadata=described("Waiting for a slot.", 1))
    setup: int = field(metadata=described("Pulling the image, and installing what is needed.", 0))
    run: int = field(metadata=described("The program.", 11))


@frozen(kw_only=True)
class Truncated:
    """Which outputs were cut at the server's limit."""

    stdout: bool = field(default=False, metadata=described("Standard output was."))
    stderr: bool = field(default=False, metadata=described("Standard error was."))
    result: bool | None = field(
        default=None, metadata=described("The expression's repr was; left out when it was not.")
    )


@frozen(kw_only=True)
class Summary:
    """An execution without its output. Fields that do not apply are left out."""

    execution_id: str = field(metadata=ID_FIELD)
    status: Status = field(metadata=described("pending and running come before the end.", "completed"))
    exit_code: int | None = field(
        default=None, metadata=described("The program's own; 128 + n if signal n ended it.", 0)
    )
    error: str | None = field(
        default=None, metadata=described("What went wrong, for a person.", "division by zero")
    )
    error_type: str | None = field(
        default=None,
        metadata=described(
            f"The class of the program's exception; of a failed execution one of {', '.join(FailureType)}.",
            "ZeroDivisionError",
        ),
    )
    error_line: int | None = field(
        default=None, metadata=described("Where the exception was raised, in the program's own files.", 3)
    )
    result: str | None = field(
        default=None, metadata=described("The repr of the last expression, where it was asked for.", "42")
    )
    created_at: datetime = field(metadata=described("When it was accepted."))
    started_at: datetime | None = field(default=None, metadata=described("When the program started."))
    finished_at: datetime | None = field(default=None, metadata=described("When it was over."))
    duration_ms: int | None = field(
        default=None, metadata=described("From acceptance to the end, in milliseconds.", 12)
    )
    timings_ms: Timings | None = field(default=None, metadata=described("Where that time went."))
    usage: Usage | None = field(default=None, metadata=described("What the program took."))


@frozen(kw_only=True)
class Result(Summary):
    """An execution with its output. A program that fails has a result, too."""

    stdout: str = field(default="", metadata=described("Standard output, as UTF-8.", "42\n"))
    stderr: str = field(
        default="", metadata=described("Standard error; the setup's output when that failed.")
    )
    truncated: Truncated = field(default=Truncated(), metadata=described("Whether output was cut."))
    files: tuple[OutputFile, ...] | None = field(
        default=None, metadata=described("What output_files brought back.")
    )
    files_truncated: bool | None = field(
        default=None, metadata=described("Some of it is missing; left out when none is.")
    )


def summarize(execution: Execution) -> Summary:
    """Return the summary of an execution."""
    return Summary(**_facts(execution))  # type: ignore[arg-type]


def result_of(execution: Execution, output_log: OutputLog) -> Result:
    """Return the result of an execution. `output_log` is its output so far."""
    end = execution.terminal
    limited = isinstance(end, Failed) and end.error_type == "output_limit"
    stdout, stderr = output_log.text_of(Stream.STDOUT), output_log.text_of(Stream.STDERR)
    result_cut = True if isinstance(end, Finished) and end.result_truncated else None
    files = files_of(execution)
    return Result(
        **_facts(execution),  # type: ignore[arg-type]
        stdout=stdout,
        stderr=stderr,
        # Both streams share one limit. An empty stream was not cut; at least one of the others was.
        truncated=Truncated(
            stdout=limited and stdout != "", stderr=limited and stderr != "", result=result_cut
        ),
        files=files.listed if files else None,
        files_truncated=True if files and files.truncated else None,
    )


def files_of(execution: Execution) -> OutputFiles | None:
    """Return the output files of an ended execution; None if it has not ended, or requested none.

    If the program ran but its files could not be collected, some may be missing, so they count as truncated."""
    if execution.terminal is None or not execution.spec.output_files:
        return None
    return execution.terminal.files or OutputFiles(truncated=execution.started_at is not None)


def _facts(execution: Execution) -> dict[str, object]:
    facts: dict[str, object] = {
        "execution_id": execution.id,
        "status": execution.status,
        "created_at": execution.created_at,
        "started_at": execution.started_at,
    }
    end = execution.terminal
    if end is None:
        return facts
    claimed = execution.claimed_at or end.at
    started = execution.started_at or end.at
    facts |= {
        "finished_at": end.at,
        "duration_ms": _ms(execution.created_at, end.at),
        "timings_ms": Timings(
            queue=_ms(execution.created_at, claimed),
            setup=_ms(execution.preparing_at or started, started),
            run=_ms(started, end.at),
        ),
        "usage": end.usage,
    }
    if isinstance(end, Finished | Failed):
        facts |= {"exit_code": end.exit_code, "error": end.error, "error_type": end.error_type}
    if isinstance(end, Finished):
        facts |= {"error_line": end.error_line, "result": end.result}
    return facts


def _ms(earlier: datetime, later: datetime) -> int:
    """Return the whole milliseconds between two times. Never negative, although clocks of two machines may differ."""
    return max(0, round((later - earlier).total_seconds() * 1000))
