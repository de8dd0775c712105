"""The state of this replica, as it reports it to callers and to other replicas."""

from collections.abc import Awaitable, Callable, Mapping, Sequence

import anyio
from attrs import field, frozen

from pyexec.domain.cluster import Capacity, ClusterView, ReplicaState, SandboxReuse, SessionCount, TenantQueue
from pyexec.errors import ExecutorError
from pyexec.ports import Member
from pyexec.sandbox.pool.kind_queue import supply_by_image
from pyexec.sandbox.pool.pool import Pool
from pyexec.services.reconciler import Reconciler
from pyexec.services.sessions.sessions import Sessions
from pyexec.services.setup_lane import SetupLane
from pyexec.services.slots import Slots

CHECK_SECONDS = 1.0
Checks = Mapping[str, Callable[[], Awaitable[None]]]


@frozen(kw_only=True)
class ReplicaReporter:
    """Reports the state of this replica. `checks` must not cost Consul anything: consoles ask every few seconds."""

    member: Member
    slots: Slots
    lane: SetupLane
    pool: Pool
    reconciler: Reconciler
    sessions: Sessions
    checks: Checks
    warnings: Callable[[], Sequence[str]]
    since: float = field(factory=anyio.current_time)

    async def report(self) -> ClusterView:
        """Return the state of this replica, its queue, and, on the leader, the executions without a replica."""
        failures = await failed_checks(self.checks, CHECK_SECONDS)
        leads = self.reconciler.leading.locked()
        slots = self.slots
        state = ReplicaState(
            name=self.member.replica,
            address=self.member.address,
            version=self.member.version,
            ready=not failures,
            warnings=(*(f"{name}: {reason}" for name, reason in failures.items()), *self.warnings()),
            leader=leads,
            draining=slots.closed,
            slots=Capacity(total=slots.size, used=slots.size - slots.free),
            memory_mb=slots.memory_mb,
            pool=supply_by_image(self.pool.queues),
            reuse=SandboxReuse(served=self.pool.returned[True], discarded=self.pool.returned[False]),
            sessions=SessionCount(open=self.sessions.open_count),
            uptime_seconds=round(anyio.current_time() - self.since, 3),
        )
        return ClusterView(replicas=(state,), queue=self._queue())

    def _queue(self) -> tuple[TenantQueue, ...]:
        backlog = self.reconciler.backlog_by_tenant()
        names = {*self.slots.tenants.names, *backlog}
        return tuple(
            TenantQueue(
                tenant=name,
                waiting=self.slots.queue_length_of(name)
                + self.lane.count(tenant=name).waiting
                + backlog.get(name, 0),
                running=self.slots.in_use_by(name),
            )
            for name in sorted(names)
        )


async def failed_checks(checks: Checks, seconds: float) -> dict[str, str]:
    """Return the reason for each check that fails, by the check's name. All checks together take at most `seconds`."""
    reasons = {}

    async def run(name: str, check: Callable[[], Awaitable[None]]) -> None:
        try:
            with anyio.fail_after(seconds):
                await check()
        except TimeoutError:
            reasons[name] = f"timed out after {seconds:g} s"
        except ExecutorError as error:
            reasons[name] = str(error)

    async with anyio.create_task_group() as tasks:
        for name, check in checks.items():
            tasks.start_soon(run, name, check, name=f"check {name}")
    return {name: reasons[name] for name in checks if name in reasons}
