"""Descriptions, examples and patterns of the API's schemas, by type and field, and of its errors."""

from typing import Any

from attrs import frozen

from pyexec.codec import TAGS
from pyexec.domain.events import FailureType, Usage
from pyexec.domain.ids import ID_PATTERN
from pyexec.domain.output_files import OutputFile
from pyexec.domain.result import Result, SkippedFile, Summary, Timings, Truncated
from pyexec.domain.spec import EvalRequest, Metadata, RequestedLimits, SourceFile
from pyexec.web.schemas import (
    KEY_LENGTH_MAX,
    Accepted,
    EventsQuery,
    ExecutionPath,
    Health,
    IdempotencyHeader,
    KillAnswer,
    LastEventIdHeader,
    Listing,
    ListQuery,
    LogsQuery,
    Message,
    OutputFilePath,
    Parts,
    Problem,
    Readiness,
    Unreadiness,
    WaitQuery,
)

EXAMPLE_ID = "exe_0190a2b4c6d87e1f9a0b1c2d3e4f5061"
_ANY_TEXT = r"^[^\x00]*$"
_NON_EMPTY_TEXT = r"^[^\x00]+$"
_EVENT_ID = r"^[0-9]+\.[0-9]+$"


@frozen
class FieldDoc:
    """Documentation of a field.

    A pattern must be valid in ECMAScript and in Python. The pattern of a list applies to each of its items."""

    description: str
    example: Any = None
    pattern: str | None = None


@frozen
class TypeDoc:
    """Documentation of a type and of its own fields; inherited fields are documented at the base class."""

    description: str
    fields: dict[str, FieldDoc]


def _type(description: str = "", **fields: FieldDoc) -> TypeDoc:
    return TypeDoc(description, fields)


_EXECUTION_ID = FieldDoc("Id of the execution.", EXAMPLE_ID, ID_PATTERN)
_EVENT_NAMES = ", ".join(tag.partition(".")[0] for tag in TAGS)

_RUN_OPTIONS = {
    "entrypoint": FieldDoc(
        "Path of the file to run. Default: main.py, else __main__.py, else the first other .py file at the root of "
        "the archive; else the same in its only top-level folder; else the main.py nearest to the root.",
        "main.py",
        _NON_EMPTY_TEXT,
    ),
    "docker_image": FieldDoc("Image to run in.", "python:3.12-slim"),
    "requirements_txt": FieldDoc(
        "Text of a requirements.txt. The packages are installed before the program starts.", "numpy==2.4.0\n"
    ),
    "inline_requirements": FieldDoc(
        "If `requirements_txt` is left out, carry out the `# /// script` block of the script (PEP 723): install its "
        "`dependencies`, and run in an image whose Python satisfies `requires-python`.",
        True,
    ),
    "pre_commands": FieldDoc(
        "Shell commands, run as root and with network access before the program starts. What they put into their home "
        "is in the program's home, too.",
        ["apt-get update && apt-get install -y ffmpeg"],
        r"^[^\x00]*\S[^\x00]*$",
    ),
    "stdin": FieldDoc("Standard input of the program.", "a line\n"),
    "env_vars": FieldDoc(
        "Environment variables, each as NAME=value of at most 131071 bytes.",
        ["MODE=test"],
        r"^[^=\x00]+=[^\x00]*$",
    ),
    "script_args": FieldDoc(
        "Command-line arguments of the program, each of at most 131071 bytes.", ["--fast"], _ANY_TEXT
    ),
    "output_files": FieldDoc(
        "Glob patterns of the files below /work to return. A directory means all files in it.",
        ["*.png"],
        _NON_EMPTY_TEXT,
    ),
    "config": FieldDoc("Limits of the run."),
}

TYPES: dict[type, TypeDoc] = {
    RequestedLimits: _type(
        "Limits of the run. A limit that is left out takes the server's default; a limit above the server's maximum "
        "is an error.",
        timeout_seconds=FieldDoc("Time limit of the program, in seconds.", 10),
        network_disabled=FieldDoc("Set to false to give the program network access.", True),
        memory_mb=FieldDoc("Memory limit of the program, in MiB.", 256),
        disk_mb=FieldDoc("Limit of the files in /work and /tmp together, in MiB.", 512),
        cpu_shares=FieldDoc("CPU weight relative to other runs.", 1024),
        cpus=FieldDoc("Maximum number of CPUs.", 1.5),
        cpu_seconds=FieldDoc(
            "Limit of the program's processor time, all processes and threads together, in seconds.", 5
        ),
    ),
    Metadata: _type("Options of a run.", **_RUN_OPTIONS),
    SourceFile: _type(
        "A source file.",
        name=FieldDoc("Path relative to /work.", "main.py", _NON_EMPTY_TEXT),
        content=FieldDoc("Text of the file.", "print(6 * 7)"),
    ),
    EvalRequest: _type(
        "Source code and the options of its run. Give either `code` or `files`, and at most one of `docker_image` and "
        "`python_version`.",
        code=FieldDoc("Source code of a single script.", "6 * 7"),
        files=FieldDoc("Source files, instead of `code`."),
        python_version=FieldDoc(
            # No example: programs send all examples together, and docker_image has one.
            "Python version such as 3.12; selects the image python:X-slim.",
            pattern=r"^3\.([89]|[1-9][0-9])$",
        ),
        eval_last_expr=FieldDoc("Return the repr of the last expression as `result`.", True),
        **_RUN_OPTIONS,
    ),
    Parts: _type(
        "Parts of an upload.",
        metadata=FieldDoc("Options of the run. Send this part before the archive."),
        tar=FieldDoc("Uncompressed tar archive."),
    ),
    Timings: _type(
        "Duration of each phase, in whole milliseconds.",
        queue=FieldDoc("Time in the queue for a slot.", 1),
        setup=FieldDoc(
            "Time to pull the image and to install packages, with the wait for other setups before it and for a slot "
            "after it.",
            0,
        ),
        run=FieldDoc("Run time of the program.", 11),
    ),
    Usage: _type(
        "Resources that the program used.",
        cpu_seconds=FieldDoc("CPU time of all its processes, in seconds.", 0.01),
        peak_memory_bytes=FieldDoc("Peak memory, in bytes.", 9000000),
    ),
    Truncated: _type(
        "The outputs of which only the beginning was stored.",
        stdout=FieldDoc("True if only the beginning of standard output was stored."),
        stderr=FieldDoc("True if only the beginning of standard error was stored."),
        result=FieldDoc("True if only the beginning of `result` was stored; otherwise left out."),
    ),
    OutputFile: _type(
        "A returned file.",
        path=FieldDoc("Path relative to /work.", "out/plot.png"),
        size=FieldDoc("Size in bytes.", 21573),
    ),
    SkippedFile: _type(
        "A file that was not returned, or a pattern of `output_files` for which files are missing. It has either "
        "`path` or `pattern`.",
        path=FieldDoc("Path relative to /work. Unsafe characters are replaced, and a long path is cut."),
        pattern=FieldDoc("The pattern, as in the request.", "out/*.csv"),
        reason=FieldDoc("Why: a code. Later versions may add codes.", "no_match"),
    ),
    Summary: _type(
        "An execution without its output. Fields that do not apply are left out.",
        execution_id=_EXECUTION_ID,
        status=FieldDoc("Status of the execution. All except pending and running are final.", "completed"),
        tenant=FieldDoc(
            "Tenant of the token that was sent with the code; left out if the server requires no tokens.",
            "acme",
        ),
        entrypoint=FieldDoc("The file that runs, relative to /work.", "main.py"),
        exit_code=FieldDoc("Exit code of the program; 128 + n if signal n ended it.", 0),
        error=FieldDoc(
            "Message of the program's exception, the reason if the status is failed, or a limit that was reached.",
            "division by zero",
        ),
        error_type=FieldDoc(
            "Class name of the program's exception; if the status is failed, one of "
            f"{', '.join(FailureType)}.",
            "ZeroDivisionError",
        ),
        error_line=FieldDoc("Line in the program's own files that raised the exception.", 3),
        result=FieldDoc("repr of the last expression, if `eval_last_expr` was set.", "42"),
        created_at=FieldDoc("Time of acceptance."),
        started_at=FieldDoc("Time at which the program started."),
        finished_at=FieldDoc("Time at which the execution ended."),
        duration_ms=FieldDoc("Time from acceptance to the end, in milliseconds.", 12),
        timings_ms=FieldDoc("Duration of each phase."),
        usage=FieldDoc("Resources that the program used."),
    ),
    Result: _type(
        "An execution with its output so far. A program that fails has a result, too.",
        stdout=FieldDoc("Standard output, decoded as UTF-8.", "42\n"),
        stderr=FieldDoc("Standard error, decoded as UTF-8. If the setup failed, the output of the setup."),
        truncated=FieldDoc("Output that was cut."),
        files=FieldDoc("Returned files, if `output_files` was set."),
        files_truncated=FieldDoc("True if some files could not be returned; otherwise left out."),
        files_skipped=FieldDoc("Files and patterns that were skipped; left out if there are none."),
        files_skipped_truncated=FieldDoc(
            "True if more files were skipped than `files_skipped` contains; otherwise left out."
        ),
    ),
    Accepted: _type("The accepted execution.", execution_id=_EXECUTION_ID),
    KillAnswer: _type(
        "Status after the kill.",
        status=FieldDoc(
            "killed, or another status if the execution ended by itself or has not ended yet.", "killed"
        ),
    ),
    Listing: _type(
        "One page of executions, newest first.",
        executions=FieldDoc("Executions without their output."),
        next_cursor=FieldDoc("Cursor of the next page; null on the last page."),
    ),
    Message: _type(
        "One event of a stream.",
        event=FieldDoc(
            f"Name of a lifecycle event ({_EVENT_NAMES}), or `setup` or `output` for printed bytes. finished, failed "
            "and killed are final.",
            "output",
        ),
        id=FieldDoc("Position in the stream. Send it as `Last-Event-ID` to resume.", "3.3", _EVENT_ID),
        data=FieldDoc(
            "JSON. For a lifecycle event: its type and time. For setup and output: the printed bytes in base64 and, "
            "for output, their stream. For the final event: the result.",
            '{"stream": "stdout", "data": "NDIK"}',
        ),
    ),
    Health: _type("Response of the liveness check.", status=FieldDoc("Always ok.", "ok")),
    Readiness: _type(
        "Response of the readiness check if the server accepts work.",
        status=FieldDoc("Always ok.", "ok"),
        sandbox_reuse=FieldDoc(
            "`on` if programs of one tenant run in the same sandbox, one after another; else `off`.", "on"
        ),
        warnings=FieldDoc("Warnings for the operator; left out if there are none."),
    ),
    Problem: _type(
        "An error.",
        error=FieldDoc("Error message.", "config.memory_mb must be at least 16, not 1"),
        code=FieldDoc("Machine-readable error code.", "invalid_request"),
        field=FieldDoc("Field of the request that is wrong, if there is one.", "config.memory_mb"),
        execution_id=FieldDoc(
            "Id of an execution that was accepted before the error occurred. It continues.",
            pattern=ID_PATTERN,
        ),
    ),
    Unreadiness: _type(
        "Response of the readiness check if the server does not accept work.",
        status=FieldDoc("Always unavailable.", "unavailable"),
        reasons=FieldDoc("Reason of each failed check.", {"docker": "timed out after 5 s"}),
    ),
    # Classes of parameters have no description: the document shows only their fields.
    ExecutionPath: _type(id=_EXECUTION_ID),
    OutputFilePath: _type(path=FieldDoc("Path of the file, as in the result.", "out/plot.png")),
    WaitQuery: _type(wait=FieldDoc("Maximum time to wait for the end of the execution, in seconds.", 10)),
    ListQuery: _type(
        status=FieldDoc("Return only executions with this status."),
        limit=FieldDoc("Maximum number of executions.", 50),
        cursor=FieldDoc("`next_cursor` of the previous page; leave it out for the first page."),
    ),
    LogsQuery: _type(
        stream=FieldDoc("Return only this stream. Default: both."),
        follow=FieldDoc("Stream the output until the execution ends."),
    ),
    EventsQuery: _type(follow=FieldDoc("Stream until the execution ends; if 0, return only past events.")),
    IdempotencyHeader: _type(
        key=FieldDoc(
            "Repeated requests with the same key return the same execution. A different request with that key is an "
            "error.",
            pattern=f"^.{{1,{KEY_LENGTH_MAX}}}$",
        )
    ),
    LastEventIdHeader: _type(last_event_id=FieldDoc("Id of the last received event.", pattern=_EVENT_ID)),
}

ERRORS = {
    400: "The request is malformed or not allowed; `field` names what is wrong.",
    401: "The API token is missing or invalid.",
    403: "A browser sent the request for a page of another site, and no API tokens are configured.",
    404: "The execution is unknown, or was deleted after its retention.",
    409: "The Idempotency-Key was already used with a different request.",
    413: "The request, or the unpacked archive, is too large.",
    415: "The archive is not an uncompressed tar, or the body is compressed.",
    429: "No slot, or no place for the setup that the request needs, is free, and the queue is full.",
    503: "The event log or the container engine is unavailable, or the server is starting or stopping.",
}
"""Description of each error status."""
ERROR_HEADERS = {
    401: {"WWW-Authenticate": "Always Bearer."},
    429: {"Retry-After": "Seconds to wait before the next attempt."},
}


def field_doc(cls: type, name: str) -> FieldDoc:
    """Return the documentation of a field, also of an inherited one; raise `LookupError` if there is none."""
    for base in cls.__mro__:
        if base in TYPES and name in TYPES[base].fields:
            return TYPES[base].fields[name]
    raise LookupError(f"{cls.__name__}.{name} is not documented")
