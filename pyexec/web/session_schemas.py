"""Request parameters, bodies and response bodies of the endpoints for sessions.

Descriptions and examples of the fields are in `openapi/session_descriptions.py`; for metadata, see `schemas.py`."""

from typing import ClassVar

from attrs import field, fields, frozen

from pyexec.domain.session_request import SessionRequest
from pyexec.domain.session_view import SessionView
from pyexec.domain.spec import TIMEOUT_SECONDS_MIN


@frozen(kw_only=True)
class SessionPath:
    """Path parameters of a session."""

    id: str


@frozen(kw_only=True)
class SessionFilePath(SessionPath):
    """Path parameters of a file in a session."""

    path: str


@frozen(kw_only=True)
class FilesQuery:
    """Query of `GET /sessions/{id}/files`."""

    glob: str = "."


@frozen(kw_only=True)
class SessionParts:
    """Parts of the multipart request that opens a session with files."""

    metadata: SessionRequest = field(factory=SessionRequest)
    tar: bytes = field(metadata={"media_type": "application/x-tar"})


@frozen(kw_only=True)
class CellRequest:
    """Code to run in a session."""

    HINTS: ClassVar = {
        **dict.fromkeys(
            (option.name for option in fields(SessionRequest)),
            "set it when the session is opened, with POST /api/v1/sessions",
        ),
        "config": "send timeout_seconds beside code; the other limits are set when the session is opened",
        "eval_last_expr": "a cell always returns the value of its last expression",
        "stdin": "a cell has no standard input",
    }

    code: str
    timeout_seconds: float | None = field(default=None, metadata={"minimum": TIMEOUT_SECONDS_MIN})


@frozen(kw_only=True)
class SessionListQuery:
    """Query of `GET /sessions`."""

    wait: float = field(default=0.0, metadata={"minimum": 0, "maximum": 60})


@frozen(kw_only=True)
class SessionListing:
    """All sessions, newest first."""

    sessions: tuple[SessionView, ...]


@frozen(kw_only=True)
class InterruptAnswer:
    """Response to an interrupt."""

    interrupted: bool
