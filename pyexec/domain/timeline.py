"""The event log of an execution for people: what happened when, on which replica, and how long each phase took."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum

from attrs import frozen

from pyexec.domain.events import Event, Failed, Finished, Released, Running, Submitted
from pyexec.domain.execution import Execution, Phase, apply


class PhaseName(StrEnum):
    """The names of the phases in a timeline."""

    QUEUED = "queued"
    CLAIMED = "claimed"
    PREPARING = "preparing"
    RUNNING = "running"
    COMPLETING = "completing"


@frozen(kw_only=True)
class TimelineEvent:
    """An event, without what may be secret or large. `replica` is responsible for the execution at that time."""

    type: str
    at: datetime
    replica: str | None = None
    image: str | None = None
    reason: str | None = None
    exit_code: int | None = None
    error_type: str | None = None


@frozen(kw_only=True)
class TimelinePhase:
    """A phase without interruption, and its duration in seconds; of a phase that has not ended, the duration so far."""

    name: PhaseName
    seconds: float


@frozen(kw_only=True)
class Timeline:
    """The events of an execution and its phases, both in the order in which they happened."""

    id: str
    events: tuple[TimelineEvent, ...]
    phases: tuple[TimelinePhase, ...]


def timeline(execution_id: str, events: Sequence[Event], now: datetime) -> Timeline:
    """Return the timeline of an execution; raise `CorruptLog` if its events are not legal.

    The clocks of replicas may differ. For the phases, an event does not happen before the event that precedes it in the
    log, so no phase is negative, and the phases together take the whole time from the first event to the last."""
    state: Execution | None = None
    shown: list[TimelineEvent] = []
    phases: list[tuple[PhaseName, float]] = []
    last = now
    for event in events:
        before = state
        state = apply(execution_id, state, event)
        if before is not None:
            moment = max(last, event.at)
            _extend(phases, before, (moment - last).total_seconds())
            last = moment
        else:
            last = event.at
        shown.append(_show(event, state.owner or (before.owner if before else None)))
    if state is not None and state.phase is not Phase.ENDED:
        _extend(phases, state, (max(last, now) - last).total_seconds())
    return Timeline(
        id=execution_id,
        events=tuple(shown),
        phases=tuple(TimelinePhase(name=name, seconds=round(seconds, 6)) for name, seconds in phases),
    )


def _extend(phases: list[tuple[PhaseName, float]], state: Execution, seconds: float) -> None:
    """Add time in a state: to the last phase if that is the same, else as a new phase."""
    name = PhaseName.COMPLETING if state.kill_requested else PhaseName(state.phase.value)
    if phases and phases[-1][0] is name:
        seconds += phases.pop()[1]
    phases.append((name, seconds))


def _show(event: Event, replica: str | None) -> TimelineEvent:
    return TimelineEvent(
        type=event.name,
        at=event.at,
        replica=replica,
        image=_image_of(event),
        reason=event.reason if isinstance(event, Released) else None,
        exit_code=event.exit_code if isinstance(event, Finished | Failed) else None,
        error_type=event.error_type if isinstance(event, Finished | Failed) else None,
    )


def _image_of(event: Event) -> str | None:
    """Return the image that the caller asked for, or the digest of the one that runs."""
    if isinstance(event, Submitted):
        return event.spec.docker_image
    return event.image if isinstance(event, Running) else None
