"""The state of an execution, which is the fold of its events, and the rules for the next event."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from attrs import evolve, frozen

from pyexec.domain.events import (
    Adopted,
    Claimed,
    Event,
    Failed,
    Finished,
    Killed,
    KillRequested,
    Preparing,
    Released,
    Running,
    Submitted,
    Terminal,
)
from pyexec.domain.spec import Spec
from pyexec.errors import CorruptLog


class Phase(StrEnum):
    """The phase of an execution. Callers see QUEUED, CLAIMED and PREPARING as `pending`."""

    QUEUED = "queued"
    CLAIMED = "claimed"
    PREPARING = "preparing"
    RUNNING = "running"
    ENDED = "ended"


class Status(StrEnum):
    """The status that callers see (docs/api.md)."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    KILLED = "killed"


OPEN_STATUSES = frozenset({Status.PENDING, Status.RUNNING})
OPEN_PHASES = frozenset(Phase) - {Phase.ENDED}
OWNED_PHASES = frozenset({Phase.CLAIMED, Phase.PREPARING, Phase.RUNNING})

LEGAL_PHASES: dict[type[Event], frozenset[Phase]] = {
    Claimed: frozenset({Phase.QUEUED}),
    Released: frozenset({Phase.CLAIMED, Phase.PREPARING}),
    Preparing: frozenset({Phase.CLAIMED}),
    Running: frozenset({Phase.CLAIMED, Phase.PREPARING}),
    Adopted: frozenset({Phase.RUNNING}),
    KillRequested: OWNED_PHASES,
    Finished: frozenset({Phase.RUNNING}),
    Failed: OPEN_PHASES,
    Killed: OPEN_PHASES,
}
"""The phases in which each event is legal. `Submitted` is legal only as the first event."""

_STATUS_AFTER: dict[type[Event], Status] = {
    Submitted: Status.PENDING,
    Claimed: Status.PENDING,
    Released: Status.PENDING,
    Preparing: Status.PENDING,
    Running: Status.RUNNING,
    Finished: Status.COMPLETED,
    Failed: Status.FAILED,
    Killed: Status.KILLED,
}


@frozen(kw_only=True)
class Execution:
    """The state of an execution after `seq` events."""

    id: str
    seq: int
    phase: Phase
    spec: Spec
    payload: str | None
    pinned: str | None
    created_at: datetime
    owner: str | None = None
    claimed_at: datetime | None = None
    preparing_at: datetime | None = None
    started_at: datetime | None = None
    engine: str | None = None
    container: str | None = None
    kill_requested: bool = False
    terminal: Terminal | None = None
    traceparent: str | None = None
    tracestate: str | None = None

    def is_for(self, replica: str) -> bool:
        """Return True if the execution is open, and `replica` owns it or, if it has no owner, it is pinned to
        `replica`."""
        return self.phase is not Phase.ENDED and (self.owner or self.pinned) == replica

    @property
    def status(self) -> Status:
        if self.terminal is not None:
            return end_status(self.terminal)
        return Status.RUNNING if self.phase is Phase.RUNNING else Status.PENDING


def fold(execution_id: str, events: Iterable[Event], state: Execution | None = None) -> Execution:
    """Return the state after `events`, which follow `state` or begin with the first event. Raises `CorruptLog` if one
    of them is not legal."""
    for event in events:
        state = apply(execution_id, state, event)
    if state is None:
        raise CorruptLog(f"{execution_id} has no events")
    return state


def apply(execution_id: str, state: Execution | None, event: Event) -> Execution:
    """Return the state after one more event; raise `CorruptLog` if the event is not legal in this state."""
    if state is None or isinstance(event, Submitted):
        if state is not None or not isinstance(event, Submitted):
            raise CorruptLog(
                f"{execution_id}: {type(event).__name__} is not legal here; a log begins with Submitted and has it once"
            )
        return Execution(
            id=execution_id,
            seq=1,
            phase=Phase.QUEUED,
            spec=event.spec,
            payload=event.payload,
            pinned=event.pinned,
            created_at=event.at,
            traceparent=event.traceparent,
            tracestate=event.tracestate,
        )
    if not is_legal(state, event):
        raise CorruptLog(
            f"{execution_id}: event {state.seq + 1}, {type(event).__name__}, is not legal in {state.phase}"
        )
    return evolve(state, seq=state.seq + 1, **_changes(state, event))


def is_legal(state: Execution, event: Event) -> bool:
    """Return True if `event` may come next.

    After a kill request, a second one is not legal, and neither is a release: another replica would start the code."""
    if isinstance(event, KillRequested | Released) and state.kill_requested:
        return False
    return state.phase in LEGAL_PHASES.get(type(event), frozenset())


def status_after(event: Event) -> Status | None:
    """Return the status that callers see after `event`; None if the event does not change it.

    The index of an event log uses this, because it sees single events and not the whole log."""
    return _STATUS_AFTER.get(type(event))


def end_status(terminal: Terminal) -> Status:
    """Return the status of an execution that this event has ended."""
    return _STATUS_AFTER[type(terminal)]


def _changes(state: Execution, event: Event) -> dict[str, Any]:
    """Return the fields that the event changes, besides `seq`."""
    match event:
        case Claimed():
            return {"phase": Phase.CLAIMED, "owner": event.replica, "claimed_at": event.at}
        case Released():
            return {"phase": Phase.QUEUED, "owner": None, "claimed_at": None, "preparing_at": None}
        case Preparing():
            return {"phase": Phase.PREPARING, "preparing_at": event.at}
        case Running():
            return {
                "phase": Phase.RUNNING,
                "started_at": event.at,
                "engine": event.engine,
                "container": event.container,
            }
        case Adopted():
            return {"owner": event.replica}
        case KillRequested():
            return {"kill_requested": True}
        case Finished() | Failed() | Killed():
            return {"phase": Phase.ENDED, "terminal": event}
    raise CorruptLog(f"{state.id}: {type(event).__name__} changes no state")


def request_kill(state: Execution, *, at: datetime, nonce: str) -> Sequence[Event]:
    """Return the events that a kill appends.

    A queued execution has no owner and is killed at once. Otherwise the owner gets a kill request. If the execution has
    ended, or a kill was already requested, the result is empty."""
    if state.phase is Phase.QUEUED:
        return (Killed(at=at, nonce=nonce),)
    if state.phase is Phase.ENDED or state.kill_requested:
        return ()
    return (KillRequested(at=at, nonce=nonce),)
