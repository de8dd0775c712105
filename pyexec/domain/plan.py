"""Decide what the reconciler does next: a pure function from the state of the cluster to the actions that are due."""

from collections.abc import Iterator, Mapping, Sequence, Set

from attrs import define, field, frozen

from pyexec.domain.execution import OWNED_PHASES, Execution, Phase
from pyexec.domain.fair_queue import FairQueue, FairShares


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
    `ahead`: for each live replica, the tenants of which it can be given one execution beyond its capacity.
    `allowance`: for each live replica, how many more executions of a tenant it can be given; without an entry, any
    number.
    `shares`: the claims of each tenant so far.
    `gone_since`: for each replica that is no longer live, the time at which the reconciler learned that.
    `adoption_seconds`: how long another replica on the same engine may take to adopt a running program.
    `open_sessions`: the interpreter sessions that are open; None if they are not known yet."""

    now: float
    open: Sequence[OpenExecution]
    capacity: Mapping[str, int]
    queue_timeout_seconds: float
    in_setup: Mapping[str, int] = field(factory=dict)
    ahead: Mapping[str, Set[str]] = field(factory=dict)
    allowance: Mapping[str, Mapping[str, int]] = field(factory=dict)
    shares: FairShares = field(factory=FairShares)
    gone_since: Mapping[str, float] = field(factory=dict)
    adoption_seconds: float = 0.0
    open_sessions: Set[str] | None = None


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


@frozen(kw_only=True)
class EndCell:
    """End a cell that has not started: its session is closed, and the replica that had to end it is gone."""

    execution: Execution


Action = Claim | Expire | Release | MarkLost | EndCell


def plan(state: ClusterState) -> Sequence[Action]:
    """Return the actions that are due, at most one for each execution: of each tenant, oldest execution first.

    Safety: only executions that never reached RUNNING are released or claimed, executions with a kill request are not
    released, and no replica is given more executions than its capacity, and one of each tenant that is `ahead`.
    The owner of a session starts and ends its cells; the plan ends those of closed sessions whose owner is gone."""
    candidates = sorted(state.open, key=lambda open_execution: open_execution.execution.id)
    claims = _plan_claims(state, [each.execution for each in candidates if _is_claimable(state, each)])
    actions: list[Action] = []
    for candidate in candidates:
        execution = candidate.execution
        action: Action | None
        if execution.spec.session_id is not None:
            action = _plan_cell(state, execution)
        elif _is_claimable(state, candidate):
            action = next(claims, None)
        elif execution.phase is Phase.QUEUED:
            action = _plan_queued(state, candidate)
        elif execution.phase in OWNED_PHASES and execution.owner not in state.capacity:
            action = _plan_orphaned(state, execution)
        else:
            continue
        if action is not None:
            actions.append(action)
    return actions


def _has_expired(state: ClusterState, candidate: OpenExecution) -> bool:
    return state.now >= candidate.waiting_since + state.queue_timeout_seconds


def _is_claimable(state: ClusterState, candidate: OpenExecution) -> bool:
    """Return True if any replica may claim the execution."""
    execution = candidate.execution
    is_unbound = execution.phase is Phase.QUEUED and execution.pinned is None
    is_cell = execution.spec.session_id is not None
    return is_unbound and not is_cell and not _has_expired(state, candidate)


def _plan_queued(state: ClusterState, candidate: OpenExecution) -> Action:
    """Expire a queued execution that has waited too long. Claim a pinned one for its replica, if that is alive."""
    execution = candidate.execution
    if _has_expired(state, candidate):
        return Expire(execution=execution)
    if execution.pinned is not None and execution.pinned in state.capacity:
        return Claim(execution=execution, replica=execution.pinned)
    return MarkLost(execution=execution)


def _plan_claims(state: ClusterState, executions: Sequence[Execution]) -> Iterator[Claim]:
    """Claim executions as long as a replica can be given one. Tenants take turns, by their weights."""
    queue = FairQueue[Execution](state.shares.copy())
    for execution in executions:
        queue.push(execution.spec.tenant, execution)
    room = _Room.of(state)
    while found := queue.peek(lambda tenant: room.replica_for(tenant) is not None):
        tenant, execution = found
        yield Claim(execution=execution, replica=room.take(tenant))
        queue.pop(tenant)


@define
class _Room:
    """The rest of what the replicas can be given."""

    capacity: dict[str, int]
    in_setup: Mapping[str, int]
    ahead: dict[str, set[str]]
    allowance: dict[str, dict[str, int]]

    @classmethod
    def of(cls, state: ClusterState) -> "_Room":
        """Return a copy of the numbers in `state`."""
        ahead = {replica: set(tenants) for replica, tenants in state.ahead.items()}
        allowance = {replica: dict(tenants) for replica, tenants in state.allowance.items()}
        return cls(dict(state.capacity), state.in_setup, ahead, allowance)

    def replica_for(self, tenant: str) -> str | None:
        """Return the replica with the most room for the tenant, less the executions in its setup lane; None if all are
        full."""
        able = [replica for replica in self.capacity if self._takes(replica, tenant)]
        return max(
            able, key=lambda name: (self._room(name, tenant) - self.in_setup.get(name, 0), name), default=None
        )

    def take(self, tenant: str) -> str:
        """Give one execution to the replica for this tenant, and return the replica. There must be one."""
        replica = self.replica_for(tenant)
        if replica is None:
            raise ValueError(f"no replica can run a program of {tenant}")
        self.capacity[replica] -= 1
        self.ahead.get(replica, set()).discard(tenant)
        if tenant in self.allowance.get(replica, {}):
            self.allowance[replica][tenant] -= 1
        return replica

    def _room(self, replica: str, tenant: str) -> int:
        capacity = self.capacity[replica]
        return min(capacity, self.allowance.get(replica, {}).get(tenant, capacity))

    def _takes(self, replica: str, tenant: str) -> bool:
        if self.allowance.get(replica, {}).get(tenant, 1) <= 0:
            return False
        return self.capacity[replica] > 0 or tenant in self.ahead.get(replica, ())


def _plan_orphaned(state: ClusterState, execution: Execution) -> Action | None:
    """Release an execution whose replica is gone, or mark it lost; a running one only after the time for adoption."""
    if execution.phase is not Phase.RUNNING:
        cannot_restart = execution.kill_requested or execution.payload is None
        return MarkLost(execution=execution) if cannot_restart else Release(execution=execution)
    since = state.gone_since.get(execution.owner or "", state.now)
    return MarkLost(execution=execution) if state.now >= since + state.adoption_seconds else None


def _plan_cell(state: ClusterState, execution: Execution) -> Action | None:
    """End a cell if its session is not open, and its replica is gone. Otherwise that replica or the next owner of the
    session starts it or ends it."""
    if state.open_sessions is None or execution.spec.session_id in state.open_sessions:
        return None
    if execution.phase is Phase.ENDED or (execution.owner or execution.pinned) in state.capacity:
        return None
    is_started = execution.phase is Phase.RUNNING
    return MarkLost(execution=execution) if is_started else EndCell(execution=execution)


def next_deadline(state: ClusterState) -> float | None:
    """Return the time at which the next action becomes due if nothing changes before; None if there is none.

    The terms are the same as in `plan`: rounding must not make a deadline earlier than its action."""
    without_cells = [candidate for candidate in state.open if candidate.execution.spec.session_id is None]
    moments = [
        candidate.waiting_since + state.queue_timeout_seconds
        for candidate in without_cells
        if candidate.execution.phase is Phase.QUEUED
    ]
    moments += [
        state.gone_since.get(candidate.execution.owner or "", state.now) + state.adoption_seconds
        for candidate in without_cells
        if candidate.execution.phase is Phase.RUNNING and candidate.execution.owner not in state.capacity
    ]
    return min(moments, default=None)
