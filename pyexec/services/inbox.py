"""What others have for this replica to do: executions that the leader placed here, and kills of what runs here."""

import logging
from collections.abc import Sequence
from functools import partial

import anyio
from anyio.abc import TaskGroup
from attrs import define, field

from pyexec.aio import FailureLog
from pyexec.correlation import correlate, correlated
from pyexec.domain.events import Event, Killed
from pyexec.domain.execution import Execution, Phase, fold
from pyexec.errors import Conflict, CorruptLog, Unavailable
from pyexec.ports import EventLog
from pyexec.services.active_runs import ActiveRuns, Run
from pyexec.services.clock import nonce, now
from pyexec.services.corrupt_logs import CorruptLogReporter
from pyexec.services.runner import Runner
from pyexec.services.slots import Slots

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 10.0
RETRY_SECONDS = 1.0


@define(kw_only=True)
class InboxAttendant:
    """`run` it as long as the replica takes work. `patience_seconds` is how long a placed execution stands in line
    here before it is given back: it may find room elsewhere, or have waited too long."""

    log: EventLog
    slots: Slots
    active_runs: ActiveRuns
    runner: Runner
    corrupt_logs: CorruptLogReporter
    patience_seconds: float = PATIENCE_SECONDS
    _starting: set[str] = field(factory=set, init=False)

    async def run(self) -> None:
        """Attends to the inbox until cancelled."""
        replica = self.runner.config.replica
        version: int | None = None
        reading = FailureLog(logger, "reading the inbox")
        async with anyio.create_task_group() as tasks:
            while True:
                try:
                    inbox = await self.log.inbox(replica, version)
                    reading.recovered()
                    for execution_id, number in inbox.told.items():
                        with correlated(execution_id):
                            await self._attend(execution_id, tasks)
                            await self.log.acknowledge(replica, execution_id, number)
                    version = inbox.version
                except Unavailable as error:
                    reading.failed(error)
                    await anyio.sleep(RETRY_SECONDS)

    async def _attend(self, execution_id: str, tasks: TaskGroup) -> None:
        try:
            events = await self.log.read(execution_id)
            if not events:
                return
            if (run := self.active_runs.get(execution_id)) is not None:
                run.catch_up(events)
                return
            execution = fold(execution_id, events)
        except CorruptLog as error:
            self.corrupt_logs.report(execution_id, error)
            return
        if execution.phase is not Phase.CLAIMED or execution.owner != self.runner.config.replica:
            return
        if execution.kill_requested:
            await self._append(execution, Killed(at=now(), nonce=nonce()))
        elif execution.payload is None:
            self.runner.resolve_later(execution_id, "its archive is gone with the caller who waited for it")
        elif execution_id not in self._starting:
            self._starting.add(execution_id)
            tasks.start_soon(partial(self._start, execution_id, events), name=f"start placed {execution_id}")

    async def _start(self, execution_id: str, events: Sequence[Event]) -> None:
        """Runs what was placed here once there is a slot; gives it back when there is none for long."""
        correlate(execution_id, "async")
        try:
            slot = None
            execution = fold(execution_id, events)
            with anyio.move_on_after(self.patience_seconds):
                slot = await self.slots.reserve(execution.spec.limits, for_backlog=True)
            if slot is not None:
                run = Run(execution_id)
                run.record(events)
                self.runner.start_claimed(run, slot)
                return
            self.runner.resolve_later(execution_id, "no slot became free there")
        finally:
            self._starting.discard(execution_id)

    async def _append(self, execution: Execution, event: Event) -> None:
        try:
            await self.log.append(execution.id, execution.seq, [event])
        except Conflict as error:
            logger.info("%s has moved on: %s", execution.id, error)
