"""Descriptions of the types of sessions."""

from typing import Any

from pyexec.domain.session_events import CloseReason
from pyexec.domain.session_request import SessionRequest
from pyexec.domain.session_view import CellCounts, SessionView
from pyexec.services.sessions.files import FileListing
from pyexec.web.openapi.field_docs import EXAMPLE_ID, SESSION_ID, FieldDoc, TypeDoc, type_doc
from pyexec.web.session_schemas import (
    CellRequest,
    FilesQuery,
    InterruptAnswer,
    SessionFilePath,
    SessionListing,
    SessionListQuery,
    SessionParts,
    SessionPath,
)


def session_types(run_options: dict[str, FieldDoc]) -> dict[type, TypeDoc]:
    """Return the documentation of the types. Options that runs have, too, have the same descriptions."""
    shared: dict[str, Any] = {
        name: run_options[name] for name in ("docker_image", "requirements_txt", "pre_commands", "env_vars")
    }
    return {
        SessionRequest: type_doc(
            "Options of a session.",
            **shared,
            config=FieldDoc("Limits. `timeout_seconds` is the default of each cell."),
            idle_timeout_seconds=FieldDoc(
                "Time without requests after which the session is closed, in seconds.", 300
            ),
            lifetime_seconds=FieldDoc("Time after which the session is closed, in seconds.", 3600),
        ),
        SessionParts: type_doc(
            "Parts of a request that opens a session with files.",
            metadata=FieldDoc("Options of the session. Send this part before the archive."),
            tar=FieldDoc("Uncompressed tar archive. Its files are in /work."),
        ),
        SessionView: type_doc(
            "An interpreter session. Fields that do not apply are left out.",
            id=SESSION_ID,
            status=FieldDoc("open, or closed, which is final.", "open"),
            created_at=FieldDoc("Time at which it was opened."),
            docker_image=FieldDoc("Image of the interpreter.", "python:3.12-slim"),
            idle_timeout_seconds=FieldDoc("Time without requests after which it is closed, in seconds.", 600),
            lifetime_seconds=FieldDoc("Time after which it is closed, in seconds.", 86400),
            interpreter_restarts=FieldDoc(
                "How many times a new interpreter has replaced the one before, whose variables are lost. Counted up to "
                "1000.",
                0,
            ),
            cells=FieldDoc("The cells that have not ended."),
            replica=FieldDoc("The replica that owns it.", "rep_0190a2b4c6d87e1f"),
            expires_at=FieldDoc(
                "Time at which it closes if no request uses it before. Left out while it is in use, and in a list by "
                "replicas that do not own it."
            ),
            close_reason=FieldDoc(
                f"Why it is closed: {', '.join(CloseReason)}. Later versions may add reasons.", "idle"
            ),
            closed_at=FieldDoc("Time at which it was closed."),
            tenant=FieldDoc(
                "Tenant of the token that opened it; left out if the server requires no tokens.", "acme"
            ),
        ),
        CellCounts: type_doc(
            "Cells of a session that have not ended.",
            waiting=FieldDoc("Number of cells that wait.", 0),
            running=FieldDoc("Execution id of the cell that runs; left out if none does.", EXAMPLE_ID),
        ),
        SessionListQuery: type_doc(
            wait=FieldDoc(
                "With `If-None-Match`: maximum time to wait for a change of any session, in seconds.", 10
            )
        ),
        SessionListing: type_doc(
            "Sessions, newest first.",
            sessions=FieldDoc("All sessions that are not deleted after their retention."),
        ),
        CellRequest: type_doc(
            "Code to run in a session.",
            code=FieldDoc(
                "Source code. The value of its last expression is the `result`, unless it is `None`.",
                "total = 6 * 7\ntotal",
            ),
            timeout_seconds=FieldDoc(
                "Time limit of this code, in seconds. Default: that of the session.", 10
            ),
        ),
        InterruptAnswer: type_doc(
            "Response to an interrupt.",
            interrupted=FieldDoc("False if no code was running.", True),
        ),
        FileListing: type_doc(
            "Files of a session.",
            files=FieldDoc("The files that match the pattern."),
            truncated=FieldDoc("True if there are more files than the list contains.", False),
        ),
        SessionPath: type_doc(id=SESSION_ID),
        SessionFilePath: type_doc(path=FieldDoc("Path of the file, relative to /work.", "data/table.csv")),
        FilesQuery: type_doc(
            glob=FieldDoc("Pattern of the files, as in `output_files`. Default: all files.", "*.csv")
        ),
    }
