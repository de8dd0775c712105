"""Decide what the reconciler does next: a pure function from the state of the cluster to the actions that are due."""

from collections.abc import Mapping, Sequence

from attrs import field, frozen

from pyexec.domain.execution import OWNED_PHASES, Execution, Phase


@frozen(kw_only=True)
class OpenExecution:
    """An execution that has not ended, and the time from which its wait for a slot is counted.

    `waiting_since` is when the reconciler first saw the execution, or released it because its replica had died. A
    release by the replica itself does not change it. The clock is the reconciler's monotonic clock, so clocks of two
    machines are never compared."""

    execution: Execution
    waiting_since: float


@frozen(kw_only=True)
class ClusterState:
    """Everything that the decision depends on. All times are on the reconciler's monotonic clock.

    `capacity`: for each live replica, how many more executions it can be given.
    `in_setup`: for each live replica, how many executions are in its setup lane. They do not reduce its capacity.
    `gone_since`: for each replica that is no longer live, the time at which the reconciler learned that.
    `adoption_seconds`: how long another replica on the same engine may take to adopt a running program."""

    now: float
    open: Sequence[OpenExecution]
    capacity: Mapping[str, int]
    queue_timeout_seconds: float
    in_setup: Mapping[str, int] = field(factory=dict)
    gone_since: Mapping[str, float] = field(factory=dict)
    adoption_seconds: float = 0.0


@frozen(kw_only=True)
class Claim:
    """Claim the execution for `replica`, which then runs it."""

    execution: Execution
    replica: str


@frozen(kw_only=True)
class Expire:
    """Fail an execution that has waited longer than the queue timeout."""

    execution: Execution


@frozen(kw_only=True)
class Release:
    """Return an execution to the queue: its replica is gone and its code has not started."""

    execution: Execution


@frozen(kw_only=True)
class MarkLost:
    """End an execution whose replica is gone and that cannot run on another one: its code may have run, a kill was
    requested, or only that replica had its archive."""

    execution: Execution


Action = Claim | Expire | Release | MarkLost


def plan(state: ClusterState) -> Sequence[Action]:
    """Return the actions that are due, oldest execution first, at most one for each execution.

    Safety: only executions that never reached RUNNING are released or claimed, executions with a kill request are not
    released, and no replica is given more executions than its capacity."""
    capacity = {replica: free for replica, free in state.capacity.items() if free > 0}
    actions: list[Action] = []
    for candidate in sorted(state.open, key=lambda open_execution: open_execution.execution.id):
        execution = candidate.execution
        if execution.phase is Phase.QUEUED:
            action = _plan_queued(state, candidate, capacity)
        elif execution.phase in OWNED_PHASES and execution.owner not in state.capacity:
            action = _plan_orphaned(state, execution)
        else:
            continue
        if action is not None:
            actions.append(action)
    return actions


def _plan_queued(state: ClusterState, candidate: OpenExecution, capacity: dict[str, int]) -> Action | None:
    """Claim a queued execution for the replica that it is pinned to, else for the one with the largest capacity, less
    the executions in its setup lane."""
    execution = candidate.execution
    if state.now >= candidate.waiting_since + state.queue_timeout_seconds:
        return Expire(execution=execution)
    if execution.pinned is not None:
        alive = execution.pinned in state.capacity
        return (
            Claim(execution=execution, replica=execution.pinned) if alive else MarkLost(execution=execution)
        )
    if not capacity:
        return None
    replica = max(capacity, key=lambda name: (capacity[name] - state.in_setup.get(name, 0), name))
    capacity[replica] -= 1
    if capacity[replica] == 0:
        del capacity[replica]
    return Claim(execution=execution, replica=replica)


def _plan_orphaned(state: ClusterState, execution: Execution) -> Action | None:
    """Release an execution whose replica is gone, or mark it lost; a running one only after the time for adoption."""
    if execution.phase is not Phase.RUNNING:
        cannot_restart = execution.kill_requested or execution.payload is None
        return MarkLost(execution=execution) if cannot_restart else Release(execution=execution)
    since = state.gone_since.get(execution.owner or "", state.now)
    return MarkLost(execution=execution) if state.now >= since + state.adoption_seconds else None


def next_deadline(state: ClusterState) -> float | None:
    """Return the time at which the next action becomes due if nothing changes before; None if there is none.

    The terms are the same as in `plan`: rounding must not make a deadline earlier than its action."""
    moments = [
        candidate.waiting_since + state.queue_timeout_seconds
        for candidate in state.open
        if candidate.execution.phase is Phase.QUEUED
    ]
    moments += [
        state.gone_since.get(candidate.execution.owner or "", state.now) + state.adoption_seconds
        for candidate in state.open
        if candidate.execution.phase is Phase.RUNNING and candidate.execution.owner not in state.capacity
    ]
    return min(moments, default=None)
