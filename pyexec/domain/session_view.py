"""The state of an interpreter session, as callers see it."""

from datetime import datetime, timedelta

from attrs import frozen

from pyexec.domain.session import Session, SessionStatus
from pyexec.domain.session_events import CloseReason


@frozen(kw_only=True)
class CellCounts:
    """The cells of a session: how many wait, and the execution id of the cell that runs."""

    waiting: int = 0
    running: str | None = None


@frozen(kw_only=True)
class SessionView:
    """A session in a response. Fields that do not apply are None, and left out.

    `expires_at` is the time at which it closes if no request uses it before. It is None while it is in use, and on
    replicas that do not own it."""

    id: str
    status: SessionStatus
    created_at: datetime
    docker_image: str
    idle_timeout_seconds: float
    lifetime_seconds: float
    interpreter_restarts: int
    cells: CellCounts
    replica: str | None = None
    expires_at: datetime | None = None
    close_reason: CloseReason | None = None
    closed_at: datetime | None = None
    tenant: str | None = None


def view_of(
    session: Session, waiting: int = 0, running: str | None = None, idle_since: datetime | None = None
) -> SessionView:
    """Return the view of a session. `idle_since` is the end of its last use, which only the owner knows; None if it
    is in use."""
    return SessionView(
        id=session.id,
        status=session.status,
        created_at=session.created_at,
        docker_image=session.spec.docker_image,
        idle_timeout_seconds=session.spec.idle_timeout_seconds,
        lifetime_seconds=session.spec.lifetime_seconds,
        interpreter_restarts=session.restarts,
        cells=CellCounts(waiting=waiting, running=running),
        replica=session.owner,
        expires_at=_expires_at(session, idle_since) if session.is_open else None,
        close_reason=session.close_reason,
        closed_at=session.closed_at,
        tenant=session.spec.tenant,
    )


def _expires_at(session: Session, idle_since: datetime | None) -> datetime | None:
    if idle_since is None:
        return None
    end = session.created_at + timedelta(seconds=session.spec.lifetime_seconds)
    return min(end, idle_since + timedelta(seconds=session.spec.idle_timeout_seconds))
