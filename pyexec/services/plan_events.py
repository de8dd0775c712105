"""Convert the actions of the plan to the events that the reconciler appends."""

from attrs import frozen

from pyexec.domain.events import Claimed, Event, Failed, FailureType, Killed, Released
from pyexec.domain.execution import Execution, Phase
from pyexec.domain.plan import Action, Claim, EndCell, Expire, MarkLost, Release
from pyexec.services.clock import nonce, now


@frozen(kw_only=True)
class PlannedAppend:
    """The event of an action, the replica to notify, and the replica that must not be a member."""

    event: Event
    notify: str | None = None
    fence: str | None = None


def append_of(action: Action, queue_timeout_seconds: float) -> PlannedAppend:
    """Return what the reconciler appends for an action."""
    execution = action.execution
    match action:
        case Claim():
            event = Claimed(at=now(), nonce=nonce(), replica=action.replica)
            return PlannedAppend(event=event, notify=action.replica)
        case Expire():
            error = (
                "queue timeout: no slot became free within PYEXEC_QUEUE_TIMEOUT "
                f"({queue_timeout_seconds:g} s)"
            )
            return PlannedAppend(event=_failed(FailureType.QUEUE_TIMEOUT, error))
        case Release():
            released = Released(at=now(), nonce=nonce(), reason="its replica is gone")
            return PlannedAppend(event=released, fence=execution.owner)
        case MarkLost():
            return PlannedAppend(event=_lost(execution), fence=execution.owner or execution.pinned)
        case EndCell():
            return PlannedAppend(event=_session_closed(execution), fence=execution.owner or execution.pinned)


def _failed(kind: FailureType, error: str) -> Failed:
    return Failed(at=now(), nonce=nonce(), error_type=kind, error=error)


def _lost(execution: Execution) -> Event:
    """Return the end of an execution that a dead replica left and that cannot run elsewhere."""
    if execution.kill_requested:
        return Killed(at=now(), nonce=nonce())
    if execution.phase is Phase.RUNNING:
        return _failed(FailureType.LOST, "its replica is gone; the code may have run up to its deadline")
    return _failed(FailureType.LOST, "the replica died; only it had the archive; the code did not run")


def _session_closed(execution: Execution) -> Event:
    """Return the end of a cell whose session was closed before the cell started."""
    if execution.kill_requested:
        return Killed(at=now(), nonce=nonce())
    return _failed(FailureType.SESSION_CLOSED, "the session was closed before the code started")
