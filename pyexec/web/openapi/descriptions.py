"""Descriptions, examples and patterns of the API's schemas, by type and field."""

from pyexec.codec import TAGS
from pyexec.domain.ids import ID_PATTERN
from pyexec.domain.spec import EvalRequest, Metadata, RequestedLimits, SourceFile
from pyexec.web.openapi.cluster_descriptions import CLUSTER_TYPES
from pyexec.web.openapi.field_docs import EXAMPLE_SESSION_ID, EXECUTION_ID, FieldDoc, TypeDoc, type_doc
from pyexec.web.openapi.result_descriptions import RESULT_TYPES
from pyexec.web.openapi.session_descriptions import session_types
from pyexec.web.schemas import (
    KEY_LENGTH_MAX,
    Accepted,
    EventsQuery,
    ExecutionPath,
    Health,
    IdempotencyHeader,
    IfNoneMatchHeader,
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

_ANY_TEXT = r"^[^\x00]*$"
_NON_EMPTY_TEXT = r"^[^\x00]+$"
_EVENT_ID = r"^[0-9]+\.[0-9]+$"


_EVENT_NAMES = ", ".join(event.name for event in TAGS.values())

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
    "webhook_url": FieldDoc(
        "URL to which the server sends the result when the execution has ended: a POST with a signature as in Standard "
        "Webhooks, repeated until it is received. The operator allows hosts (`PYEXEC_WEBHOOK_HOSTS`).",
        pattern=r"^https?://[!-~]{1,2040}$",
    ),
    "capture_displays": FieldDoc("Return what the program shows as `displays`, such as figures."),
}

TYPES: dict[type, TypeDoc] = {
    RequestedLimits: type_doc(
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
    Metadata: type_doc("Options of a run.", **_RUN_OPTIONS),
    SourceFile: type_doc(
        "A source file.",
        name=FieldDoc("Path relative to /work.", "main.py", _NON_EMPTY_TEXT),
        content=FieldDoc("Text of the file.", "print(6 * 7)"),
    ),
    EvalRequest: type_doc(
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
    Parts: type_doc(
        "Parts of an upload.",
        metadata=FieldDoc("Options of the run. Send this part before the archive."),
        tar=FieldDoc("Uncompressed tar archive."),
    ),
    **RESULT_TYPES,
    **CLUSTER_TYPES,
    **session_types(_RUN_OPTIONS),
    Accepted: type_doc("The accepted execution.", execution_id=EXECUTION_ID),
    KillAnswer: type_doc(
        "Status after the kill.",
        status=FieldDoc(
            "killed, or another status if the execution ended by itself or has not ended yet.", "killed"
        ),
    ),
    Listing: type_doc(
        "One page of executions, newest first.",
        executions=FieldDoc("Executions without their output."),
        next_cursor=FieldDoc("Cursor of the next page; null on the last page."),
    ),
    Message: type_doc(
        "One event of a stream.",
        event=FieldDoc(
            f"Name of a lifecycle event ({_EVENT_NAMES}), `setup` or `output` for printed bytes, or `display`. "
            "finished, failed and killed are final.",
            "output",
        ),
        id=FieldDoc("Position in the stream. Send it as `Last-Event-ID` to resume.", "3.3", _EVENT_ID),
        data=FieldDoc(
            "JSON. For a lifecycle event: its type and time. For setup and output: the printed bytes in base64 and, "
            "for output, their stream. For display: an item of `displays`. For the final event: the result.",
            '{"stream": "stdout", "data": "NDIK"}',
        ),
    ),
    Health: type_doc("Response of the liveness check.", status=FieldDoc("Always ok.", "ok")),
    Readiness: type_doc(
        "Response of the readiness check if the server accepts work.",
        status=FieldDoc("Always ok.", "ok"),
        sandbox_reuse=FieldDoc(
            "`on` if programs of one tenant run in the same sandbox, one after another; else `off`.", "on"
        ),
        warnings=FieldDoc("Warnings for the operator; left out if there are none."),
    ),
    Problem: type_doc(
        "An error.",
        error=FieldDoc("Error message.", "config.memory_mb must be at least 16, not 1"),
        code=FieldDoc("Machine-readable error code.", "invalid_request"),
        field=FieldDoc("Field of the request that is wrong, if there is one.", "config.memory_mb"),
        execution_id=FieldDoc(
            "Id of an execution that was accepted before the error occurred. It continues.",
            pattern=ID_PATTERN,
        ),
    ),
    Unreadiness: type_doc(
        "Response of the readiness check if the server does not accept work.",
        status=FieldDoc("Always unavailable.", "unavailable"),
        reasons=FieldDoc("Reason of each failed check.", {"docker": "timed out after 5 s"}),
    ),
    # Classes of parameters have no description: the document shows only their fields.
    ExecutionPath: type_doc(id=EXECUTION_ID),
    OutputFilePath: type_doc(path=FieldDoc("Path of the file, as in the result.", "out/plot.png")),
    WaitQuery: type_doc(wait=FieldDoc("Maximum time to wait for the end of the execution, in seconds.", 10)),
    ListQuery: type_doc(
        status=FieldDoc("Return only executions with this status."),
        session_id=FieldDoc("Return only the cells of this interpreter session.", EXAMPLE_SESSION_ID),
        limit=FieldDoc("Maximum number of executions.", 50),
        cursor=FieldDoc("`next_cursor` of the previous page; leave it out for the first page."),
        wait=FieldDoc(
            "With `If-None-Match`: maximum time to wait for a change of any execution, in seconds.", 10
        ),
    ),
    IfNoneMatchHeader: type_doc(
        # Without a pattern: the server ignores unknown tags.
        tag=FieldDoc("`ETag` of an earlier response: respond with 304 if nothing has changed since.")
    ),
    LogsQuery: type_doc(
        stream=FieldDoc("Return only this stream. Default: both."),
        follow=FieldDoc("Stream the output until the execution ends."),
    ),
    EventsQuery: type_doc(follow=FieldDoc("Stream until the execution ends; if 0, return only past events.")),
    IdempotencyHeader: type_doc(
        key=FieldDoc(
            "Repeated requests with the same key return the same execution. A different request with that key is an "
            "error.",
            pattern=f"^.{{1,{KEY_LENGTH_MAX}}}$",
        )
    ),
    LastEventIdHeader: type_doc(last_event_id=FieldDoc("Id of the last received event.", pattern=_EVENT_ID)),
}
