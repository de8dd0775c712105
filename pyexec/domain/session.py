"""The state of an interpreter session, which is the fold of its events; the rules for the next event; lost sessions."""

from collections.abc import Iterable, Mapping, Sequence, Set
from datetime import datetime
from enum import StrEnum
from typing import Any

from attrs import evolve, field, frozen

from pyexec.domain.session_events import (
    CloseReason,
    InterpreterRestarted,
    SessionAdopted,
    SessionClosed,
    SessionEvent,
    SessionOpened,
    SessionPlaced,
)
from pyexec.domain.spec import SessionSpec
from pyexec.errors import CorruptLog


class SessionStatus(StrEnum):
    """The status that callers see (docs/api.md)."""

    OPEN = "open"
    CLOSED = "closed"


@frozen(kw_only=True)
class Session:
    """The state of a session after `seq` events.

    `generation` is the number of the event that named the current owner; 0 if there was none. It grows with every
    owner, so that the sandbox can ignore an earlier one."""

    id: str
    seq: int
    spec: SessionSpec
    created_at: datetime
    status: SessionStatus = SessionStatus.OPEN
    owner: str | None = None
    engine: str | None = None
    container: str | None = None
    image: str | None = None
    generation: int = 0
    restarts: int = 0
    closed_at: datetime | None = None
    close_reason: CloseReason | None = None

    @property
    def is_open(self) -> bool:
        return self.status is SessionStatus.OPEN


def fold_session(session_id: str, events: Iterable[SessionEvent]) -> Session:
    """Return the state after `events`, which begin with the first event; raise `CorruptLog` if one is not legal."""
    state: Session | None = None
    for event in events:
        state = apply_session(session_id, state, event)
    if state is None:
        raise CorruptLog(f"{session_id} has no events")
    return state


def apply_session(session_id: str, state: Session | None, event: SessionEvent) -> Session:
    """Return the state after one more event; raise `CorruptLog` if the event is not legal in this state."""
    if state is None and isinstance(event, SessionOpened):
        return Session(id=session_id, seq=1, spec=event.spec, created_at=event.at)
    if state is None or not is_legal(state, event):
        where = "at the beginning" if state is None else f"in a session that is {state.status}"
        raise CorruptLog(f"{session_id}: {type(event).__name__} is not legal {where}")
    return evolve(state, seq=state.seq + 1, **_changes(state, event))


def is_legal(state: Session, event: SessionEvent) -> bool:
    """Return True if `event` may come next.

    A session is placed once; only a session with an owner is adopted or gets a new interpreter; nothing follows the
    close."""
    if not state.is_open:
        return False
    match event:
        case SessionPlaced():
            return state.owner is None
        case SessionAdopted() | InterpreterRestarted():
            return state.owner is not None
    return isinstance(event, SessionClosed)


def _changes(state: Session, event: SessionEvent) -> dict[str, Any]:
    """Return the fields that the event changes, besides `seq`."""
    match event:
        case SessionPlaced():
            return {
                "owner": event.replica,
                "engine": event.engine,
                "container": event.container,
                "image": event.image,
                "generation": state.seq + 1,
            }
        case SessionAdopted():
            return {"owner": event.replica, "generation": state.seq + 1}
        case InterpreterRestarted():
            return {"restarts": state.restarts + 1}
        case SessionClosed():
            return {
                "status": SessionStatus.CLOSED,
                "closed_at": event.at,
                "close_reason": event.reason,
            }
    raise CorruptLog(f"{state.id}: {type(event).__name__} changes no state")


@frozen(kw_only=True)
class SessionsState:
    """Everything that the decision depends on. All times are on the reconciler's monotonic clock.

    `gone_since`: for each replica that is no longer live, the time at which the reconciler learned that.
    `adoption_seconds`: how long another replica on the same engine may take to adopt a session."""

    now: float
    open: Sequence[Session]
    live: Set[str]
    gone_since: Mapping[str, float] = field(factory=dict)
    adoption_seconds: float = 0.0


def plan_sessions(state: SessionsState) -> Sequence[Session]:
    """Return the open sessions that are lost, oldest first: no replica has adopted them in time."""
    lost = [session for session in _orphaned(state) if state.now >= _deadline(state, session)]
    return sorted(lost, key=lambda session: session.id)


def next_session_deadline(state: SessionsState) -> float | None:
    """Return the time at which the next session becomes lost if nothing changes before; None if none will."""
    return min((_deadline(state, session) for session in _orphaned(state)), default=None)


def _orphaned(state: SessionsState) -> Sequence[Session]:
    return [session for session in state.open if session.is_open and session.owner not in state.live]


def _deadline(state: SessionsState, session: Session) -> float:
    return state.gone_since.get(session.owner or "", state.now) + state.adoption_seconds
