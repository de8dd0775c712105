"""The result of an execution as callers see it (docs/api.md). Fields that do not apply are None here, and are left out
of the response."""

from collections.abc import Sequence
from datetime import datetime

from attrs import evolve, frozen

from pyexec.domain.crash import TracebackEntry
from pyexec.domain.displays import Display, decode_bounded_display, decode_display
from pyexec.domain.events import Failed, Finished, Terminal, Usage
from pyexec.domain.execution import Execution, Status
from pyexec.domain.output_files import OutputFile, OutputFiles, SkipReason, missing_files
from pyexec.domain.output_log import OutputLog, Stream

SUMMARY_CHARACTERS = 200
"""Maximum length of `entrypoint`, `error` and `result` in a summary; a longer one ends with an ellipsis."""


@frozen(kw_only=True)
class Timings:
    """The duration of each phase, in whole milliseconds."""

    queue: int
    setup: int
    run: int


@frozen(kw_only=True)
class Truncated:
    """Outputs that were cut at the server's limit."""

    stdout: bool = False
    stderr: bool = False
    result: bool | None = None
    displays: bool | None = None


@frozen(kw_only=True)
class SkippedFile:
    """A path below /work that was not returned, or a pattern for which files are missing."""

    path: str | None = None
    pattern: str | None = None
    reason: SkipReason


@frozen(kw_only=True)
class Summary:
    """An execution without its output, and with long texts cut. Fields that do not apply are left out."""

    execution_id: str
    status: Status
    tenant: str | None = None
    session_id: str | None = None
    entrypoint: str | None = None
    exit_code: int | None = None
    error: str | None = None
    error_type: str | None = None
    error_line: int | None = None
    result: str | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    duration_ms: int | None = None
    timings_ms: Timings | None = None
    usage: Usage | None = None
    interpreter_restarted: bool | None = None


@frozen(kw_only=True)
class Result(Summary):
    """An execution with its output. A program that fails has a result, too."""

    stdout: str = ""
    stderr: str = ""
    displays: tuple[Display, ...] | None = None
    traceback: tuple[TracebackEntry, ...] | None = None
    truncated: Truncated = Truncated()
    files: tuple[OutputFile, ...] | None = None
    files_truncated: bool | None = None
    files_skipped: tuple[SkippedFile, ...] | None = None
    files_skipped_truncated: bool | None = None


def summarize(execution: Execution) -> Summary:
    """Return the summary of an execution. Long texts of the program are cut, so that a list of many stays small."""
    summary = Summary(**_facts(execution))  # type: ignore[arg-type]
    return evolve(
        summary,
        entrypoint=_cut(summary.entrypoint),
        error=_cut(summary.error),
        result=_cut(summary.result),
    )


def _cut(text: str | None) -> str | None:
    if text is None or len(text) <= SUMMARY_CHARACTERS:
        return text
    return f"{text[: SUMMARY_CHARACTERS - 1]}…"


def result_of(execution: Execution, output_log: OutputLog, display_values_max: int | None = None) -> Result:
    """Return the result of an execution. `output_log` is its output so far.

    With `display_values_max`, JSON of a display that has more values is left out."""
    result = evolve(
        result_without_output(execution, output_log),
        stdout=output_log.text_of(Stream.STDOUT),
        stderr=output_log.text_of(Stream.STDERR),
    )
    if result.displays is None:
        return result
    if display_values_max is None:
        return evolve(result, displays=tuple(map(decode_display, output_log.displays())))
    decoded = [decode_bounded_display(line, display_values_max) for line in output_log.displays()]
    if not all(is_complete for _, is_complete in decoded):
        result = evolve(result, truncated=evolve(result.truncated, displays=True))
    return evolve(result, displays=tuple(display for display, _ in decoded))


def result_without_output(execution: Execution, output_log: OutputLog) -> Result:
    """Return the result with empty `stdout`, `stderr` and `displays`, for output that is too large to be one text."""
    end = execution.terminal
    limited = isinstance(end, Failed) and end.error_type == "output_limit"
    cut = end.output.truncated if end is not None else ()
    result_cut = True if isinstance(end, Finished) and end.result_truncated else None
    files = files_of(execution)
    return Result(
        **_facts(execution),  # type: ignore[arg-type]
        # Both streams share one limit. An empty stream was not cut; at least one of the others was.
        truncated=Truncated(
            stdout=Stream.STDOUT in cut or (limited and output_log.size_of(Stream.STDOUT) > 0),
            stderr=Stream.STDERR in cut or (limited and output_log.size_of(Stream.STDERR) > 0),
            result=result_cut,
            displays=True if Stream.DISPLAY in cut else None,
        ),
        displays=() if execution.spec.capture_displays else None,
        traceback=end.traceback if isinstance(end, Finished) else None,
        files=files.listed if files else None,
        files_truncated=True if files and files.truncated else None,
        files_skipped=_skipped(files, execution.spec.output_files) if files else None,
        files_skipped_truncated=True if files and files.skipped_truncated else None,
    )


def files_of(execution: Execution) -> OutputFiles | None:
    """Return the output files of an ended execution; None if it has not ended, or if it requested none.

    If the program started but no files were collected, the files of every pattern are missing."""
    patterns = execution.spec.output_files
    if execution.terminal is None or not patterns:
        return None
    if execution.terminal.files is not None:
        return execution.terminal.files
    return OutputFiles() if execution.started_at is None else missing_files(len(patterns))


def _skipped(files: OutputFiles, patterns: Sequence[str]) -> tuple[SkippedFile, ...] | None:
    """Return what was skipped, patterns first; None if nothing was."""
    found = [
        SkippedFile(pattern=patterns[each.number], reason=each.reason) for each in files.skipped_patterns
    ]
    found += [SkippedFile(path=each.path, reason=each.reason) for each in files.skipped_paths]
    return tuple(found) or None


def _facts(execution: Execution) -> dict[str, object]:
    facts: dict[str, object] = {
        "execution_id": execution.id,
        "status": execution.status,
        "tenant": execution.spec.tenant,
        "session_id": execution.spec.session_id,
        "entrypoint": execution.spec.entrypoint,
        "created_at": execution.created_at,
        "started_at": execution.started_at,
    }
    end = execution.terminal
    if end is None:
        return facts
    facts |= {
        "finished_at": end.at,
        "duration_ms": milliseconds(execution.created_at, end.at),
        "timings_ms": timings_of(execution, end),
        "usage": end.usage,
        "interpreter_restarted": True if end.interpreter_restarted else None,
    }
    if isinstance(end, Finished | Failed):
        facts |= {"exit_code": end.exit_code, "error": end.error, "error_type": end.error_type}
    if isinstance(end, Finished):
        facts |= {"error_line": end.error_line, "result": end.result}
    return facts


def timings_of(execution: Execution, end: Terminal) -> Timings:
    """Return the duration of each phase of an execution that has ended with this event."""
    claimed = execution.claimed_at or end.at
    started = execution.started_at or end.at
    return Timings(
        queue=milliseconds(execution.created_at, claimed),
        setup=milliseconds(execution.preparing_at or started, started),
        run=milliseconds(started, end.at),
    )


def milliseconds(earlier: datetime, later: datetime) -> int:
    """Return the whole milliseconds between two times. Never negative, although clocks of two machines may differ."""
    return max(0, round((later - earlier).total_seconds() * 1000))
