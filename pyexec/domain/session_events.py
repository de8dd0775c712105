"""The events of an interpreter session. A written event never changes."""

from enum import StrEnum

from attrs import frozen

from pyexec.domain.events import StoredEvent
from pyexec.domain.spec import SessionSpec


class CloseReason(StrEnum):
    """Reasons for which a session is closed (docs/api.md)."""

    DELETED = "deleted"
    IDLE = "idle"
    LIFETIME = "lifetime"
    LOST = "lost"
    MEMORY = "memory"
    SHUTDOWN = "shutdown"


class SessionEvent(StoredEvent):
    """An event of a session."""


@frozen(kw_only=True)
class SessionOpened(SessionEvent):
    """The session was accepted."""

    name = "session_opened"

    spec: SessionSpec


@frozen(kw_only=True)
class SessionPlaced(SessionEvent):
    """The session has its sandbox, and its first owner. `image` is the digest of the sandbox's image."""

    name = "session_placed"

    replica: str
    engine: str
    container: str
    image: str | None = None


@frozen(kw_only=True)
class SessionAdopted(SessionEvent):
    """A replica adopted the session of a dead replica on the same engine. The interpreter kept running."""

    name = "session_adopted"

    replica: str


@frozen(kw_only=True)
class InterpreterRestarted(SessionEvent):
    """A new interpreter replaced the one before, whose variables are lost. `reason` is a code for people."""

    name = "interpreter_restarted"

    reason: str


@frozen(kw_only=True)
class SessionClosed(SessionEvent):
    """The session has ended. This is always the last event."""

    name = "session_closed"

    reason: CloseReason
