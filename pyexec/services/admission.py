"""Admission: refuse an execution that could neither start nor wait, so that the queue limit is exact."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from pyexec.domain.spec import Limits
from pyexec.errors import SHUTTING_DOWN, QueueFull, Unavailable
from pyexec.ports import EventLog
from pyexec.services.active_runs import ActiveRuns
from pyexec.services.setup_lane import SetupKey, SetupLane
from pyexec.services.slots import Slots


class Admission:
    """Admits executions as long as they can start or wait.

    An execution waits in one of four places: in the queue for slots, in the setup lane, in the event log until a
    replica claims it, and here from its admission until it is in one of the others. See docs/design/setup-lane.md."""

    def __init__(self, slots: Slots, lane: SetupLane, log: EventLog, active_runs: ActiveRuns) -> None:
        self._slots = slots
        self._lane = lane
        self._log = log
        self._active_runs = active_runs
        self._accepting: dict[str, SetupKey | None] = {}

    async def check(self, limits: Limits, setup: SetupKey | None = None) -> None:
        """Raise `QueueFull` if a new execution could neither start nor wait, `Unavailable` during shutdown.

        `setup` is the setup that it needs. The caller must not await anything before it reserves its slot."""
        self._check_open()
        if self._begins_at_once(limits, setup, len(self._accepting_for_slot())):
            return
        queued = (await self._log.open_executions()).queued
        self._check_open()
        names = (queued - self._accepting.keys()) | self._accepting_for_slot()
        for_slot = sum(name not in self._active_runs for name in names)
        if self._begins_at_once(limits, setup, for_slot):
            return
        lane = self._lane.count(self._accepting_setups())
        beyond_slots = self._slots.queue_length + for_slot + lane.running - self._slots.room_for(limits)
        if lane.waiting + max(0, beyond_slots) >= self._slots.queue_max:
            size, queue_max = self._slots.size, self._slots.queue_max
            busy = f"{size} slots" if setup is None else f"{size} slots or all {self._lane.size} setups"
            raise QueueFull(
                f"all {busy} are busy and {queue_max} executions are queued (PYEXEC_MAX_QUEUED); retry later",
                retry_after_seconds=max(1, queue_max // max(1, size)),
            )

    @asynccontextmanager
    async def accepting(
        self, execution_id: str, limits: Limits, setup: SetupKey | None = None
    ) -> AsyncIterator[None]:
        """Check as `check` does, and count the execution as waiting inside this context."""
        await self.check(limits, setup)
        self._accepting[execution_id] = setup
        try:
            yield
        finally:
            self.stop_counting(execution_id)

    def stop_counting(self, execution_id: str) -> None:
        """Stop counting an execution here: it has a slot, or it is in the setup lane."""
        self._accepting.pop(execution_id, None)

    def _begins_at_once(self, limits: Limits, setup: SetupKey | None, for_slot: int) -> bool:
        """Return True if an execution need not wait, when `for_slot` others outside the queue come before it.

        If it needs a setup, a slot must be left for it after all running setups. Runs without a setup take free
        slots first."""
        free = self._slots.room_for(limits) - for_slot - self._slots.queue_length
        if setup is None:
            return free > 0
        before = self._accepting_setups()
        return free > self._lane.count(before).running and self._lane.begins_at_once(setup, before)

    def _accepting_for_slot(self) -> set[str]:
        return {execution_id for execution_id, setup in self._accepting.items() if setup is None}

    def _accepting_setups(self) -> Sequence[SetupKey]:
        return [setup for setup in self._accepting.values() if setup is not None]

    def _check_open(self) -> None:
        if self._slots.closed:
            raise Unavailable(SHUTTING_DOWN)
