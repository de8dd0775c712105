"""Handle the inbox of this replica: start executions that the leader assigned to it, and kill runs."""

import logging
from collections.abc import Sequence
from functools import partial

import anyio
from anyio.abc import TaskGroup
from attrs import define, field

from pyexec.aio import FailureLog, retry
from pyexec.correlation import correlate, correlate_tenant, correlated
from pyexec.domain.events import Event, Killed
from pyexec.domain.execution import Execution, Phase, fold
from pyexec.errors import Conflict, CorruptLog, QueueTimeout, ShuttingDown
from pyexec.ports import EventLog
from pyexec.services.active_runs import ActiveRuns, Run
from pyexec.services.clock import nonce, now
from pyexec.services.event_log import CorruptLogReporter
from pyexec.services.preparation import Preparation
from pyexec.services.reservation import Reservation
from pyexec.services.runner import Runner
from pyexec.services.setup_lane import SetupLane, setup_key
from pyexec.services.shutdown import RELEASED_AT_SHUTDOWN
from pyexec.services.slots import Slots

logger = logging.getLogger(__name__)

SLOT_WAIT_SECONDS = 10.0


@define(kw_only=True)
class InboxWorker:
    """Handles the entries of the inbox. `run` it while the replica accepts work.

    An assigned execution waits `slot_wait_seconds` for a slot. Then it is released, so that another replica can run
    it, or the leader can end it as `queue_timeout`. If it needs a setup, it joins the setup lane instead, and fails
    with `queue_timeout` after `queue_timeout_seconds`."""

    log: EventLog
    slots: Slots
    lane: SetupLane
    active_runs: ActiveRuns
    preparation: Preparation
    runner: Runner
    corrupt_logs: CorruptLogReporter
    queue_timeout_seconds: float
    slot_wait_seconds: float = SLOT_WAIT_SECONDS
    _starting: dict[str, anyio.CancelScope] = field(factory=dict, init=False)
    """The scopes of executions that wait for a slot. A kill request cancels them."""

    async def run(self) -> None:
        """Handle the inbox until cancelled."""
        failures = FailureLog(logger, "reading the inbox")
        version: int | None = None
        async with anyio.create_task_group() as tasks:
            while True:
                version = await retry(partial(self._handle_all, version, tasks), failures)

    async def _handle_all(self, version: int | None, tasks: TaskGroup) -> int:
        """Wait for an inbox newer than `version`, handle its entries, and return its version."""
        replica = self.runner.replica
        inbox = await self.log.inbox(replica, version)
        for execution_id, revision in inbox.entries.items():
            with correlated(execution_id):
                await self._handle(execution_id, tasks)
                await self.log.acknowledge(replica, execution_id, revision)
        return inbox.version

    async def _handle(self, execution_id: str, tasks: TaskGroup) -> None:
        try:
            events = await self.log.read(execution_id)
            if not events:
                return
            if (run := self.active_runs.get(execution_id)) is not None:
                run.catch_up(events)  # a kill request wakes the run
                return
            execution = fold(execution_id, events)
        except CorruptLog as error:
            self.corrupt_logs.report(execution_id, error)
            return
        correlate_tenant(execution.spec.tenant)
        if execution.phase is not Phase.CLAIMED or execution.owner != self.runner.replica:
            return
        if execution.kill_requested:
            if (waiting := self._starting.get(execution_id)) is not None:
                waiting.cancel()
            await self._append(execution, Killed(at=now(), nonce=nonce()))
        elif execution.payload is None:
            self.runner.resolve_later(
                execution_id, "archive lost: the caller disconnected before the execution started"
            )
        # If this replica drains, the leader releases the execution later.
        elif execution_id not in self._starting and not self.slots.closed:
            self._starting[execution_id] = anyio.CancelScope()
            tasks.start_soon(
                partial(self._start, execution_id, events), name=f"start assigned {execution_id}"
            )

    async def _start(self, execution_id: str, events: Sequence[Event]) -> None:
        run = Run(execution_id)
        run.record(events)
        spec = run.execution.spec
        correlate(execution_id, "async", spec.tenant)
        reservation = Reservation(
            slots=self.slots, lane=self.lane, seconds_left=self.queue_timeout_seconds, tenant=spec.tenant
        )
        try:
            with self._starting[execution_id]:
                if await self.preparation.needs_setup(spec):
                    reservation.join_setup(setup_key(spec))
                else:
                    reservation.slot = await self.slots.reserve(
                        spec.limits, self.slot_wait_seconds, spec.tenant
                    )
                self.runner.launch(run, partial(self.preparation.place_from_payload, run, reservation))
        except QueueTimeout:
            self.runner.resolve_later(execution_id, "no slot became free on its replica")
        except ShuttingDown:
            self.runner.resolve_later(execution_id, RELEASED_AT_SHUTDOWN)
        finally:
            del self._starting[execution_id]

    async def _append(self, execution: Execution, event: Event) -> None:
        try:
            await self.log.append(execution.id, execution.seq, [event])
        except Conflict as error:
            logger.info("%s: append conflict: %s", execution.id, error)
