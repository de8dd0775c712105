"""Reconcile all open executions: the leader reads the log, decides with `plan`, and appends events.

It assigns queued executions to replicas, and ends those that have waited too long. It releases the executions of dead
replicas, or ends them as lost."""

import logging
from collections import Counter
from collections.abc import Mapping
from functools import partial

import anyio
from attrs import frozen

from pyexec.aio import Broadcast, FailureLog, retry
from pyexec.correlation import correlated
from pyexec.domain.execution import Execution, Phase, fold
from pyexec.domain.fair_queue import FairShares
from pyexec.domain.plan import (
    Action,
    Claim,
    ClusterState,
    OpenExecution,
    Release,
    next_deadline,
    plan,
)
from pyexec.errors import Conflict, CorruptLog, Unavailable
from pyexec.ports import EventLog, Member, Membership
from pyexec.services.active_runs import ActiveRuns
from pyexec.services.event_log import CorruptLogReporter
from pyexec.services.plan_events import append_of
from pyexec.services.replica_load import ReplicaLoad
from pyexec.services.retention import MAINTENANCE_SECONDS, Retention
from pyexec.services.sessions.reconciler import SessionReconciler
from pyexec.services.setup_lane import SetupLane
from pyexec.services.slots import Slots
from pyexec.services.webhooks import WebhookDeliveries

logger = logging.getLogger(__name__)

RETRY_SECONDS = 1.0


@frozen(kw_only=True)
class ReconcilerConfig:
    """The operator's limits in seconds, and the id of the replica that this reconciler runs on."""

    replica: str
    queue_timeout_seconds: float
    adoption_seconds: float


class Reconciler:
    """Reconciles while its replica is the leader; `run` it as long as the replica lives."""

    def __init__(
        self,
        config: ReconcilerConfig,
        *,
        log: EventLog,
        membership: Membership,
        slots: Slots,
        lane: SetupLane,
        active_runs: ActiveRuns,
        retention: Retention,
        webhooks: WebhookDeliveries,
        sessions: SessionReconciler,
        corrupt_logs: CorruptLogReporter,
    ) -> None:
        self._config = config
        self._log = log
        self._membership = membership
        self._slots = slots
        self._lane = lane
        self._active_runs = active_runs
        self._retention = retention
        self._webhooks = webhooks
        self._sessions = sessions
        self._corrupt_logs = corrupt_logs
        self._lengths: dict[str, int] = {}
        self._open: dict[str, OpenExecution] = {}
        self._corrupt: set[str] = set()
        self._first_seen: dict[str, float] = {}
        self._members: Mapping[str, Member] = {}
        self._gone_since: dict[str, float] = {}
        self._changed = Broadcast()
        self._shares = FairShares(slots.tenants.weight_of)
        self._failures = FailureLog(logger, "reconciling")
        self.leading = anyio.Lock()
        """Locked while this replica is the leader."""

    @property
    def backlog(self) -> int:
        """The number of accepted executions without a claim, if this replica is the leader; else 0.

        Cells are left out: they wait for their session."""
        return self.backlog_by_tenant().total()

    def backlog_by_tenant(self) -> Counter[str]:
        """Return the number of these executions by tenant."""
        executions = self._without_cells() if self.leading.locked() else ()
        return Counter(each.spec.tenant for each in executions if each.phase is Phase.QUEUED)

    async def run(self) -> None:
        """Campaign for leadership, and reconcile while leading, until cancelled."""
        failures = FailureLog(logger, "campaigning for leadership")
        while True:
            await retry(partial(self._campaign, failures), failures)

    async def _campaign(self, failures: FailureLog) -> None:
        async with self._membership.lead(), self.leading:
            failures.recovered()
            logger.info("this replica is the leader now")
            await self._lead()
        logger.info("this replica is no longer the leader")

    async def _lead(self) -> None:
        self._lengths, self._open, self._first_seen, self._gone_since = {}, {}, {}, {}
        self._corrupt = set()
        self._sessions.reset()
        self._members = (await self._membership.members()).members
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch_members, name="watch members")
            tasks.start_soon(self._watch_log, name="watch open executions")
            tasks.start_soon(self._watch_sessions, name="watch sessions")
            tasks.start_soon(self._retention.retire_ended, name="retention")
            tasks.start_soon(self._webhooks.run, name="webhooks")
            tasks.start_soon(self._sessions.retire_closed, name="retention of sessions")
            tasks.start_soon(self._maintain, name="rebuild indexes")
            while True:
                changed = self._changed.next_event()
                with anyio.move_on_after(await self._reconcile()):
                    await changed.wait()

    async def _reconcile(self) -> float | None:
        """Reconcile once. Return the seconds until the next deadline; None if there is no deadline."""
        try:
            for action in plan(self._view()):
                with correlated(action.execution.id, tenant=action.execution.spec.tenant):
                    await self._act(action)
                self._failures.recovered()
            session_deadline = await self._sessions.close_lost(self._members.keys(), self._gone_since)
        except Unavailable as error:
            self._failures.failed(error)
            return RETRY_SECONDS
        deadlines = [each for each in (next_deadline(self._view()), session_deadline) if each is not None]
        return max(0.0, min(deadlines) - anyio.current_time()) if deadlines else None

    def _view(self) -> ClusterState:
        load = ReplicaLoad(
            here=self._config.replica,
            members=self._members,
            executions=self._without_cells(),
            slots=self._slots,
            lane=self._lane,
        )
        return ClusterState(
            now=anyio.current_time(),
            open=tuple(self._open.values()),
            capacity=load.capacity(),
            in_setup=load.in_setup(),
            ahead=load.ahead(),
            allowance=load.allowance(),
            shares=self._shares,
            gone_since=dict(self._gone_since),
            queue_timeout_seconds=self._config.queue_timeout_seconds,
            adoption_seconds=self._config.adoption_seconds,
            open_sessions=self._sessions.open_ids,
        )

    def _without_cells(self) -> list[Execution]:
        """Return the open executions that take slots. Cells take none."""
        executions = (seen.execution for seen in self._open.values())
        return [execution for execution in executions if execution.spec.session_id is None]

    async def _watch_members(self) -> None:
        failures = FailureLog(logger, "watching the members")
        version: int | None = None
        while True:
            version = await retry(partial(self._update_members, version), failures)

    async def _update_members(self, version: int | None) -> int:
        found = await self._membership.members(version)
        self._members = found.members
        self._update_gone()
        self._changed.notify_all()
        await self._retention.sweep(found.members)
        return found.version

    async def _watch_sessions(self) -> None:
        failures = FailureLog(logger, "watching the sessions")
        version: int | None = None
        while True:
            version = await retry(partial(self._sessions.update, version), failures)
            self._update_gone()
            self._changed.notify_all()

    async def _watch_log(self) -> None:
        failures = FailureLog(logger, "watching the open executions")
        version: int | None = None
        while True:
            version = await retry(partial(self._update_open, version), failures)

    async def _update_open(self, version: int | None) -> int:
        """Read all open executions that have changed, except those that run on this replica.

        Return the new version. If a read fails, the next call starts from the old version and repeats it."""
        opened = await self._log.open_executions(version)
        lengths, had_open = opened.lengths, bool(self._open)
        for ended in self._first_seen.keys() - lengths.keys():
            del self._first_seen[ended]
            self._open.pop(ended, None)
        for execution_id, length in lengths.items():
            is_unchanged = self._lengths.get(execution_id) == length
            if self._runs_here(execution_id, length):
                self._open.pop(execution_id, None)
            elif not is_unchanged or execution_id not in self._open.keys() | self._corrupt:
                await self._read(execution_id)
        self._lengths = dict(lengths)
        if had_open or self._open:  # else there is nothing to plan
            self._update_gone()
            self._changed.notify_all()
        return opened.version

    async def _read(self, execution_id: str) -> None:
        try:
            events = await self._log.read(execution_id)
            execution = fold(execution_id, events) if events else None
            self._corrupt.discard(execution_id)
        except CorruptLog as error:
            self._corrupt_logs.report(execution_id, error)
            self._corrupt.add(execution_id)
            execution = None
        if (
            execution is None
            or execution.phase is Phase.ENDED
            or self._runs_here(execution_id, execution.seq)
            or (execution_id in self._active_runs and execution.owner == self._config.replica)
        ):
            self._open.pop(execution_id, None)
            return
        since = self._first_seen.setdefault(execution_id, anyio.current_time())
        self._open[execution_id] = OpenExecution(execution=execution, waiting_since=since)

    def _runs_here(self, execution_id: str, length: int) -> bool:
        """Return True if this replica handles the execution and has recorded all its events. Otherwise another replica
        may have adopted it, and the log must be read."""
        run = self._active_runs.get(execution_id)
        return (
            run is not None
            and run.seq >= length
            and run.execution.phase is not Phase.QUEUED
            and run.execution.is_for(self._config.replica)
        )

    def _update_gone(self) -> None:
        """Record when each owner of an open execution or session was first missing from the members."""
        owners = {seen.execution.owner for seen in self._open.values()} | self._sessions.owners
        missing = {owner for owner in owners if owner is not None and owner not in self._members}
        self._gone_since = {owner: self._gone_since.get(owner, anyio.current_time()) for owner in missing}

    async def _act(self, action: Action) -> None:
        execution = action.execution
        append = append_of(action, self._config.queue_timeout_seconds)
        try:
            await self._log.append(
                execution.id, execution.seq, [append.event], notify=append.notify, fence=append.fence
            )
            if isinstance(action, Claim):
                self._shares.charge(execution.spec.tenant)
            if isinstance(action, Release):
                self._first_seen[execution.id] = anyio.current_time()  # its time in the queue starts again
        except Conflict as error:
            logger.info("%s: append conflict; planning again: %s", execution.id, error)
        except CorruptLog as error:
            self._corrupt_logs.report(execution.id, error)
        await self._read(execution.id)
        self._update_gone()

    async def _maintain(self) -> None:
        while True:
            await self._retention.rebuild_indexes(self._members)
            await anyio.sleep(MAINTENANCE_SECONDS)
