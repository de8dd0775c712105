"""What the reconciler should do next. A pure decision over a view of the world; it does nothing itself."""

from collections.abc import Mapping, Sequence

from attrs import field, frozen

from pyexec.domain.execution import OWNED, Execution, Phase


@frozen(kw_only=True)
class OpenExecution:
    """An open execution, and since when the reconciler has seen it wait, on its own monotonic clock: in the queue,
    or in line at a replica that gave it back because no slot became free.

    Counting from its own first sight, no two machines' clocks are ever compared."""

    execution: Execution
    since: float


@frozen(kw_only=True)
class View:
    """All that a decision depends on. `now`, `since` and `gone` are on one clock.

    `room` says of each living replica how many more executions it may be given; `gone` says of each replica that
    is not among them since when that is known. `adoption_seconds` is how long another replica on the same engine
    may take to adopt what runs there."""

    now: float
    open: Sequence[OpenExecution]
    room: Mapping[str, int]
    queue_timeout_seconds: float
    gone: Mapping[str, float] = field(factory=dict)
    adoption_seconds: float = 0.0


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
class MarkLost:
    """Its replica is gone, and it cannot run elsewhere: its code may have run, somebody wants it killed, or its
    archive went with the replica."""

    execution: Execution


Action = Claim | Expire | Release | MarkLost


def plan(view: View) -> Sequence[Action]:
    """The actions that are due, oldest execution first.

    Safety: only what never reached RUNNING is released or claimed, and what is to be killed is not released; a
    claim never takes more than there is room for; an execution gets at most one action."""
    room = {replica: free for replica, free in view.room.items() if free > 0}
    actions: list[Action] = []
    for sighting in sorted(view.open, key=lambda s: s.execution.id):
        execution = sighting.execution
        if execution.phase is Phase.QUEUED:
            action = _queued(view, sighting, room)
        elif execution.phase in OWNED and execution.owner not in view.room:
            action = _orphaned(view, execution)
        else:
            continue
        if action is not None:
            actions.append(action)
    return actions


def _queued(view: View, sighting: OpenExecution, room: dict[str, int]) -> Action | None:
    """What waits: for its own replica when it is pinned, else for the one with most room."""
    execution = sighting.execution
    if view.now >= sighting.since + view.queue_timeout_seconds:
        return Expire(execution=execution)
    if execution.pinned is not None:
        alive = execution.pinned in view.room
        return (
            Claim(execution=execution, replica=execution.pinned) if alive else MarkLost(execution=execution)
        )
    if not room:
        return None
    replica = max(room, key=lambda name: (room[name], name))
    room[replica] -= 1
    if room[replica] == 0:
        del room[replica]
    return Claim(execution=execution, replica=replica)


def _orphaned(view: View, execution: Execution) -> Action | None:
    """What a vanished replica has left."""
    if execution.phase is not Phase.RUNNING:
        stuck = execution.kill_requested or execution.payload is None
        return MarkLost(execution=execution) if stuck else Release(execution=execution)
    since = view.gone.get(execution.owner or "", view.now)
    return MarkLost(execution=execution) if view.now >= since + view.adoption_seconds else None


def next_deadline(view: View) -> float | None:
    """When the next action falls due by the passing of time alone; None when nothing waits for that.

    The same sums as in `plan`, so that rounding never makes a deadline of what is not due yet."""
    moments = [
        sighting.since + view.queue_timeout_seconds
        for sighting in view.open
        if sighting.execution.phase is Phase.QUEUED
    ]
    moments += [
        view.gone.get(sighting.execution.owner or "", view.now) + view.adoption_seconds
        for sighting in view.open
        if sighting.execution.phase is Phase.RUNNING and sighting.execution.owner not in view.room
    ]
    return min(moments, default=None)
