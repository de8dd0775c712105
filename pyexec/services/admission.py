"""Admission: reject an execution that could neither start nor wait, so that the queue limit is exact."""

from collections.abc import AsyncIterator, Sequence, Set
from contextlib import asynccontextmanager

from attrs import frozen

from pyexec.domain.execution import fold
from pyexec.domain.spec import Spec
from pyexec.errors import CorruptLog, QueueFull, ShuttingDown
from pyexec.ports import EventLog
from pyexec.services.active_runs import ActiveRuns
from pyexec.services.setup_lane import SetupKey, SetupLane, SetupRequest
from pyexec.services.slots import Slots

_UNREADABLE = ""
"""Stands for the tenant of an execution whose log cannot be read."""


@frozen
class _Candidate:
    """An execution to admit, and the setup that it needs."""

    spec: Spec
    setup: SetupKey | None = None


class Admission:
    """Admits executions as long as they can start or wait. Each tenant has its own queue limit.

    An execution waits in one of four ways: in the queue for slots, in the setup lane, in the event log until a
    replica claims it, and here from its admission until it is in one of the others. See docs/design/setup-lane.md."""

    def __init__(self, slots: Slots, lane: SetupLane, log: EventLog, active_runs: ActiveRuns) -> None:
        self._slots = slots
        self._lane = lane
        self._log = log
        self._active_runs = active_runs
        self._accepting: dict[str, _Candidate] = {}
        self._tenants: dict[str, str] = {}
        """The tenants of the executions that no replica has claimed, as far as they were read."""

    async def check(self, spec: Spec, setup: SetupKey | None = None) -> None:
        """Raise `QueueFull` if a new execution could neither start nor wait, `ShuttingDown` during shutdown.

        `setup` is the setup that it needs. The caller must not await anything before it reserves its slot."""
        candidate = _Candidate(spec, setup)
        self._check_open()
        if self._begins_at_once(candidate, self._accepting_for_slot()):
            return
        queued = await self._queued()
        self._check_open()
        names = (queued - self._accepting.keys()) | self._accepting_for_slot()
        for_slot = {name for name in names if name not in self._active_runs}
        if self._begins_at_once(candidate, for_slot):
            return
        if self._waiting(spec, for_slot) >= self._queue_max(spec.tenant):
            raise self._rejection(candidate)

    @asynccontextmanager
    async def accepting(
        self, execution_id: str, spec: Spec, setup: SetupKey | None = None
    ) -> AsyncIterator[None]:
        """Check as `check` does, and count the execution as waiting inside this context."""
        await self.check(spec, setup)
        self._accepting[execution_id] = _Candidate(spec, setup)
        try:
            yield
        finally:
            self.stop_counting(execution_id)

    def stop_counting(self, execution_id: str) -> None:
        """Stop counting an execution here: it has a slot, or it is in the setup lane."""
        self._accepting.pop(execution_id, None)

    def _begins_at_once(self, candidate: _Candidate, for_slot: Set[str]) -> bool:
        """Return True if an execution can start, or begin its setup, at once. The executions `for_slot` get their slots
        before it.

        If it needs a setup, a slot must also be free for it after the setup: each running setup will need one, too."""
        spec = candidate.spec
        free = self._slots.room_for(spec.limits, spec.tenant) - len(for_slot)
        if candidate.setup is None:
            return free > 0
        before = self._accepting_setups()
        at_once = self._lane.begins_at_once(candidate.setup, spec.tenant, before)
        return at_once and free > self._lane.count(before).running

    def _waiting(self, spec: Spec, for_slot: Set[str]) -> int:
        """Return how many executions of the tenant wait, or will wait after their setup."""
        tenant, before = spec.tenant, self._accepting_setups()
        lane, total = self._lane.count(before, tenant), self._lane.count(before)
        own = sum(self._tenant_of(name, tenant) == tenant for name in for_slot)
        others = len(for_slot) - own + total.running - lane.running
        room = max(0, self._slots.room_for(spec.limits, tenant) - others)
        beyond_slots = self._slots.queue_length_of(tenant) + own + lane.running - room
        return lane.waiting + max(0, beyond_slots)

    def _queue_max(self, tenant: str) -> int:
        own = self._slots.tenants.get(tenant).max_queued
        return self._slots.queue_max if own is None else own

    def _rejection(self, candidate: _Candidate) -> QueueFull:
        tenant = self._slots.tenants.get(candidate.spec.tenant)
        size, queue_max = self._slots.size, self._queue_max(tenant.name)
        busy = f"all slots ({size})"
        if candidate.setup is not None:
            setups = min(self._lane.size, tenant.max_setups or self._lane.size)
            busy = f"{busy} or all setups ({setups})"
        if tenant.max_running is not None and self._slots.in_use_by(tenant.name) >= tenant.max_running:
            busy = f"all slots of tenant {tenant.name} (max_running: {tenant.max_running})"
        limit = "PYEXEC_MAX_QUEUED" if tenant.max_queued is None else f"max_queued of tenant {tenant.name}"
        slots = min(size, tenant.max_running or size)
        return QueueFull(
            f"{busy} are busy and the queue is full ({limit}: {queue_max}); retry later",
            retry_after_seconds=max(1, queue_max // max(1, slots)),
        )

    async def _queued(self) -> Set[str]:
        """Return the executions that no replica has claimed, after their tenants are known.

        With a single tenant, all executions count for it, and no log is read."""
        while True:
            queued = (await self._log.open_executions()).queued
            if len(self._slots.tenants.names) == 1:
                return queued
            unknown = queued - self._tenants.keys()
            if not unknown:
                self._tenants = {name: self._tenants[name] for name in queued}
                return queued
            for name in unknown:
                self._tenants[name] = await self._read_tenant(name)

    def _tenant_of(self, execution_id: str, default: str) -> str:
        accepting = self._accepting.get(execution_id)
        return accepting.spec.tenant if accepting else self._tenants.get(execution_id, default)

    async def _read_tenant(self, execution_id: str) -> str:
        try:
            events = await self._log.read(execution_id)
            return fold(execution_id, events).spec.tenant if events else _UNREADABLE
        except CorruptLog:
            return _UNREADABLE

    def _accepting_for_slot(self) -> set[str]:
        return {name for name, candidate in self._accepting.items() if candidate.setup is None}

    def _accepting_setups(self) -> Sequence[SetupRequest]:
        return [(each.setup, each.spec.tenant) for each in self._accepting.values() if each.setup is not None]

    def _check_open(self) -> None:
        if self._slots.closed:
            raise ShuttingDown
