"""Decide which interpreter sessions are lost: a pure function from the state of the cluster."""

from collections.abc import Mapping, Sequence, Set

from attrs import field, frozen

from pyexec.domain.session import Session


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
