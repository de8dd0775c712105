"""An execution: the fold of its events, and the commands that decide which event may come next."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum

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
    """Where an execution stands. Callers see QUEUED, CLAIMED and PREPARING as `pending`."""

    QUEUED = "queued"
    CLAIMED = "claimed"
    PREPARING = "preparing"
    RUNNING = "running"
    ENDED = "ended"


class Status(StrEnum):
    """What callers see (docs/api.md)."""

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
"""In which phase each event may come. `Submitted` comes first and only there."""

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
    """The state after `seq` events."""

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

    def is_for(self, replica: str) -> bool:
        """Whether it is open, and this replica answers for it: as its owner, or as the one it is pinned to."""
        return self.phase is not Phase.ENDED and (self.owner or self.pinned) == replica

    @property
    def status(self) -> Status:
        if self.terminal is not None:
            return _STATUS_AFTER[type(self.terminal)]
        return Status.RUNNING if self.phase is Phase.RUNNING else Status.PENDING


def fold(execution_id: str, events: Iterable[Event]) -> Execution:
    """The state that `events`, from the first on, lead to; raises `CorruptLog` when they are not legal."""
    state: Execution | None = None
    for event in events:
        state = apply(execution_id, state, event)
    if state is None:
        raise CorruptLog(f"{execution_id} has no events")
    return state


def apply(execution_id: str, state: Execution | None, event: Event) -> Execution:
    """The state after `event`; raises `CorruptLog` when the event is not legal there."""
    if state is None or isinstance(event, Submitted):
        if state is not None or not isinstance(event, Submitted):
            raise CorruptLog(f"{execution_id}: a log begins with one submitted, not {type(event).__name__}")
        return Execution(
            id=execution_id,
            seq=1,
            phase=Phase.QUEUED,
            spec=event.spec,
            payload=event.payload,
            pinned=event.pinned,
            created_at=event.at,
        )
    if not is_legal(state, event):
        raise CorruptLog(
            f"{execution_id}: event {state.seq + 1}, {type(event).__name__}, is not legal in {state.phase}"
        )
    return _step(evolve(state, seq=state.seq + 1), event)


def is_legal(state: Execution, event: Event) -> bool:
    """Whether `event` may come next. What somebody asked to kill is neither asked again, nor handed on to
    another replica, which would start it all the same."""
    if isinstance(event, KillRequested | Released) and state.kill_requested:
        return False
    return state.phase in LEGAL_PHASES.get(type(event), frozenset())


def status_after(event: Event) -> Status | None:
    """What callers see once `event` has happened; None when it changes nothing for them. For a log's index,
    which follows single events and folds nothing."""
    return _STATUS_AFTER.get(type(event))


def _step(state: Execution, event: Event) -> Execution:
    match event:
        case Claimed():
            return evolve(state, phase=Phase.CLAIMED, owner=event.replica, claimed_at=event.at)
        case Released():
            return evolve(state, phase=Phase.QUEUED, owner=None, claimed_at=None, preparing_at=None)
        case Preparing():
            return evolve(state, phase=Phase.PREPARING, preparing_at=event.at)
        case Running():
            return evolve(
                state,
                phase=Phase.RUNNING,
                started_at=event.at,
                engine=event.engine,
                container=event.container,
            )
        case Adopted():
            return evolve(state, owner=event.replica)
        case KillRequested():
            return evolve(state, kill_requested=True)
        case Finished() | Failed() | Killed():
            return evolve(state, phase=Phase.ENDED, terminal=event)
    raise CorruptLog(f"{state.id}: {type(event).__name__} folds to nothing")


def request_kill(state: Execution, *, at: datetime, nonce: str) -> Sequence[Event]:
    """What a kill writes: the end itself while nobody owns it, a request to the owner after that,
    nothing when it has ended or the request is already there."""
    if state.phase is Phase.QUEUED:
        return (Killed(at=at, nonce=nonce),)
    if state.phase is Phase.ENDED or state.kill_requested:
        return ()
    return (KillRequested(at=at, nonce=nonce),)
