"""Descriptions of the types of a result."""

from attrs import evolve

from pyexec.domain.crash import TracebackEntry, TracebackFrame
from pyexec.domain.displays import Display
from pyexec.domain.events import FailureType, Usage
from pyexec.domain.output_files import OutputFile
from pyexec.domain.result import Result, SkippedFile, Summary, Timings, Truncated
from pyexec.domain.timeline import Timeline, TimelineEvent, TimelinePhase
from pyexec.web.openapi.field_docs import EXECUTION_ID, SESSION_ID, FieldDoc, TypeDoc, type_doc

RESULT_TYPES: dict[type, TypeDoc] = {
    Timings: type_doc(
        "Duration of each phase, in whole milliseconds.",
        queue=FieldDoc("Time in the queue for a slot.", 1),
        setup=FieldDoc(
            "Time to pull the image and to install packages, with the wait for other setups before it and for a slot "
            "after it.",
            0,
        ),
        run=FieldDoc("Run time of the program.", 11),
    ),
    Usage: type_doc(
        "Resources that the program used.",
        cpu_seconds=FieldDoc("CPU time of all its processes, in seconds.", 0.01),
        peak_memory_bytes=FieldDoc("Peak memory, in bytes.", 9000000),
    ),
    Truncated: type_doc(
        "The outputs of which only the beginning was stored.",
        stdout=FieldDoc("True if only the beginning of standard output was stored."),
        stderr=FieldDoc("True if only the beginning of standard error was stored."),
        result=FieldDoc("True if only the beginning of `result` was stored; otherwise left out."),
        displays=FieldDoc("True if a display, or a part of it, was dropped; otherwise left out."),
    ),
    OutputFile: type_doc(
        "A returned file.",
        path=FieldDoc("Path relative to /work.", "out/plot.png"),
        size=FieldDoc("Size in bytes.", 21573),
    ),
    SkippedFile: type_doc(
        "A file that was not returned, or a pattern of `output_files` for which files are missing. It has either "
        "`path` or `pattern`.",
        path=FieldDoc("Path relative to /work. Unsafe characters are replaced, and a long path is cut."),
        pattern=FieldDoc("The pattern, as in the request.", "out/*.csv"),
        reason=FieldDoc("Why: a code. Later versions may add codes.", "no_match"),
    ),
    Summary: type_doc(
        "An execution without its output. Fields that do not apply are left out.",
        execution_id=EXECUTION_ID,
        status=FieldDoc("Status of the execution. All except pending and running are final.", "completed"),
        tenant=FieldDoc(
            "Tenant of the token that was sent with the code; left out if the server requires no tokens.",
            "acme",
        ),
        session_id=evolve(
            SESSION_ID, description="The interpreter session, if the execution is a cell; otherwise left out."
        ),
        entrypoint=FieldDoc("The file that runs, relative to /work.", "main.py"),
        exit_code=FieldDoc("Exit code of the program; 128 + n if signal n ended it.", 0),
        error=FieldDoc(
            "Message of the program's exception, the reason if the status is failed, a limit that was reached, or the "
            "signal that ended the program.",
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
        interpreter_restarted=FieldDoc(
            "True if the session got a new interpreter, so that its variables are lost; otherwise left out."
        ),
    ),
    Result: type_doc(
        "An execution with its output so far. A program that fails has a result, too.",
        stdout=FieldDoc("Standard output, decoded as UTF-8.", "42\n"),
        stderr=FieldDoc(
            "Standard error, decoded as UTF-8. If the execution failed before its program started, the output of its "
            "setup: of the pull of the image, the installer and the `pre_commands`."
        ),
        displays=FieldDoc(
            "What a notebook would show, in order: for `/api/v1/eval`, and if `capture_displays` was set."
        ),
        traceback=FieldDoc(
            "The exception that ended the program, and before it those that led to it; only if `capture_displays` or "
            "`eval_last_expr` is true."
        ),
        truncated=FieldDoc("Output that was cut."),
        files=FieldDoc("Returned files, if `output_files` was set."),
        files_truncated=FieldDoc("True if some files could not be returned; otherwise left out."),
        files_skipped=FieldDoc("Files and patterns that were skipped; left out if there are none."),
        files_skipped_truncated=FieldDoc(
            "True if more files were skipped than `files_skipped` contains; otherwise left out."
        ),
    ),
    Timeline: type_doc(
        "What happened to an execution, in order.",
        id=EXECUTION_ID,
        events=FieldDoc("The events of its log."),
        phases=FieldDoc(
            "The phases without gaps; of an execution that has not ended, the last one is in progress."
        ),
    ),
    TimelineEvent: type_doc(
        "An event, without code, input and output. Fields that do not apply are left out.",
        type=FieldDoc("Name of the event. Later versions may add events.", "claimed"),
        at=FieldDoc("Time by the clock of the replica that wrote the event."),
        replica=FieldDoc("Replica that is responsible for the execution.", "rep_1920b2262cee7f0d"),
        image=FieldDoc("For submitted: name of the image. For running: digest of the sandbox's image."),
        reason=FieldDoc("For released: why the execution returned to the queue.", "its replica is gone"),
        exit_code=FieldDoc("Exit code of the program.", 0),
        error_type=FieldDoc("Class name of the program's exception, or kind of the failure.", "timeout"),
    ),
    TimelinePhase: type_doc(
        "A phase without interruption.",
        name=FieldDoc(
            "`queued`: no replica is responsible. `claimed`: waits for a slot and a sandbox. `preparing`: setup. "
            "`running`: the program runs. `completing`: from a kill request to the end.",
            "running",
        ),
        seconds=FieldDoc("Duration; of a phase in progress, the duration so far.", 0.011),
    ),
    Display: type_doc(
        "An object in one or more MIME types, as in the Jupyter protocol.",
        data=FieldDoc(
            "Value of each MIME type: JSON for JSON types, base64 for binary types, text for others.",
            {"image/png": "iVBORw0KGgo=", "text/plain": "<Figure size 640x480 with 1 Axes>"},
        ),
        metadata=FieldDoc("Metadata, such as the width of an image, by MIME type.", {}),
    ),
    TracebackEntry: type_doc(
        "An exception with its frames.",
        type=FieldDoc("Class name.", "ZeroDivisionError"),
        message=FieldDoc("Message.", "division by zero"),
        relation=FieldDoc(
            "How it came from the entry before: that one is its `cause`, or it was raised in the `context` of its "
            "handling. Left out for the first entry.",
        ),
        frames=FieldDoc("Lines that the exception passed, outermost first."),
        frames_omitted=FieldDoc("Number of frames that are left out in the middle; otherwise left out."),
    ),
    TracebackFrame: type_doc(
        "A line that an exception passed.",
        file=FieldDoc("Path of the file.", "/work/main.py"),
        line=FieldDoc("Number of the line; 0 if the code has no lines.", 3),
        function=FieldDoc("Name of the function; left out for the place of a syntax error.", "<module>"),
        code=FieldDoc("Text of the line; left out if it cannot be read.", "1 / 0"),
    ),
}
