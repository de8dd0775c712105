"""What the reconciler should do next. A pure decision over a view of the world; it does nothing itself."""

from collections.abc import Mapping, Sequence

from attrs import frozen

from pyexec.domain.execution import OWNED, Execution, Phase


@frozen(kw_only=True)
class Sighting:
    """An open execution, and when the reconciler first saw it in this phase, on its own monotonic clock.

    Counting from its own first sight, no two machines' clocks are ever compared."""

    execution: Execution
    since: float


@frozen(kw_only=True)
class View:
    """All that a decision depends on. `now` is on the clock of the sightings; `room` gives each living
    replica's free slots."""

    now: float
    open: Sequence[Sighting]
    room: Mapping[str, int]
    queue_timeout_seconds: float


@frozen(kw_only=True)
class Claim:
    """Let `replica` run it."""

    execution: Execution
    replica: str


@frozen(kw_only=True)
class Expire:
    """It has waited longer than the operator allows."""

    execution: Execution


@frozen(kw_only=True)
class Release:
    """Its replica is gone and its code has not started: it may run elsewhere."""

    execution: Execution


@frozen(kw_only=True)
class Lose:
    """Its replica is gone and its code may have run: it must not start again."""

    execution: Execution


Action = Claim | Expire | Release | Lose


def plan(view: View) -> Sequence[Action]:
    """The actions that are due, oldest execution first.

    Safety: only what never reached RUNNING is released or claimed; claims never take more than there is room
    for; an execution gets at most one action."""
    room = {replica: free for replica, free in view.room.items() if free > 0}
    actions: list[Action] = []
    for sighting in sorted(view.open, key=lambda s: s.execution.id):
        execution = sighting.execution
        if execution.phase is Phase.QUEUED:
            if view.now - sighting.since >= view.queue_timeout_seconds:
                actions.append(Expire(execution=execution))
            elif room:
                replica = max(room, key=lambda name: (room[name], name))
                actions.append(Claim(execution=execution, replica=replica))
                room[replica] -= 1
                if room[replica] == 0:
                    del room[replica]
        elif execution.phase in OWNED and execution.owner not in view.room:
            actions.append(
                Lose(execution=execution)
                if execution.phase is Phase.RUNNING or execution.kill_requested
                else Release(execution=execution)
            )
    return actions


def next_deadline(view: View) -> float | None:
    """When the first queued execution will have waited too long; None when none waits."""
    waits = [s.since for s in view.open if s.execution.phase is Phase.QUEUED]
    return min(waits) + view.queue_timeout_seconds if waits else None
