"""Makes every execution end: claims what waits, gives back or writes off what a dead replica left, and forgets
what has ended long ago. It looks at the log, decides by `plan`, and acts; there is one at a time."""

import logging
from collections.abc import Mapping, Set
from datetime import timedelta

import anyio
from attrs import define, frozen

from pyexec.domain.events import Failed, FailureType, Killed, Released
from pyexec.domain.execution import Execution, Phase, fold
from pyexec.domain.plan import Action, Claim, Expire, Lose, Release, Sighting, View, next_deadline, plan
from pyexec.errors import Conflict, CorruptLog, Unavailable
from pyexec.ports import BlobStore, EventLog
from pyexec.services.clock import nonce, now
from pyexec.services.live import Changes, Live
from pyexec.services.outputs import output_blob, payload_blob
from pyexec.services.runner import Runner, claim
from pyexec.services.slots import Slot, Slots

logger = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
RETIRE_AT_ONCE = 100


@frozen(kw_only=True)
class ReconcilerConfig:
    """The operator's bounds."""

    queue_timeout_seconds: float
    cleanup_ttl_seconds: float


@define
class _Line:
    """The backlog's own place in the line for slots: one, for its oldest execution."""

    execution_id: str | None = None
    slot: Slot | None = None


class Reconciler:
    """`run` it as long as this process leads."""

    def __init__(
        self,
        config: ReconcilerConfig,
        *,
        log: EventLog,
        blobs: BlobStore,
        slots: Slots,
        live: Live,
        runner: Runner,
    ) -> None:
        self._config = config
        self._log = log
        self._blobs = blobs
        self._slots = slots
        self._live = live
        self._runner = runner
        self._sightings: dict[str, Sighting] = {}
        self._line = _Line()
        self._news = Changes()

    async def run(self) -> None:
        """Reconciles until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch_log, name="watch open executions")
            tasks.start_soon(self._retire_ended, name="retire ended executions")
            tasks.start_soon(self._stand_in_line, name="stand in line for a slot")
            while True:
                news = self._news.coming()
                with anyio.move_on_after(await self._reconcile()):
                    await news.wait()

    async def _reconcile(self) -> float | None:
        """One round; how long the next may wait at most, in seconds."""
        try:
            for action in plan(self._view()):
                await self._act(action)
            if self._line.slot is not None and self._line.execution_id not in self._sightings:
                self._leave_line()
        except Unavailable as error:
            logger.error("the event log is away, reconciling again in %g s: %s", RETRY_SECONDS, error)
            return RETRY_SECONDS
        deadline = next_deadline(self._view())
        return None if deadline is None else max(0.0, deadline - anyio.current_time())

    def _view(self) -> View:
        return View(
            now=anyio.current_time(),
            open=tuple(self._sightings.values()),
            room=self._room(),
            queue_timeout_seconds=self._config.queue_timeout_seconds,
        )

    def _room(self) -> Mapping[str, int]:
        return {self._runner.config.replica: 1 if self._line.slot is not None else 0}

    async def _watch_log(self) -> None:
        version: int | None = None
        while True:
            try:
                opened = await self._log.open_executions(version)
                version = opened.version
                await self._look_at(opened.lengths.keys())
            except Unavailable as error:
                logger.error("the event log is away, looking again in %g s: %s", RETRY_SECONDS, error)
                await anyio.sleep(RETRY_SECONDS)

    async def _look_at(self, ids: Set[str]) -> None:
        """Takes note of what is open and not run here: that needs no reconciling."""
        for gone in self._sightings.keys() - ids:
            del self._sightings[gone]
        for execution_id in ids:
            if execution_id in self._live:
                self._sightings.pop(execution_id, None)
                continue
            try:
                events = await self._log.read(execution_id)
                if not events:
                    continue
                execution = fold(execution_id, events)
            except CorruptLog as error:
                logger.error("%s is left alone: %s", execution_id, error)
                continue
            self._see(execution)
        self._news.announce()

    def _see(self, execution: Execution) -> None:
        if execution.phase is Phase.ENDED or execution.id in self._live:
            self._sightings.pop(execution.id, None)
            return
        known = self._sightings.get(execution.id)
        same = known is not None and known.execution.phase is execution.phase
        since = known.since if known is not None and same else anyio.current_time()
        self._sightings[execution.id] = Sighting(execution=execution, since=since)

    async def _stand_in_line(self) -> None:
        """Waits for a slot like everybody else whenever something is queued, one at a time."""
        while True:
            news = self._news.coming()
            waiting = [s.execution for s in self._sightings.values() if s.execution.phase is Phase.QUEUED]
            if not waiting or self._line.slot is not None:
                await news.wait()
                continue
            first = min(waiting, key=lambda execution: execution.id)
            self._line.slot = await self._slots.reserve(first.spec.limits, for_backlog=True)
            self._line.execution_id = first.id
            self._news.announce()

    async def _act(self, action: Action) -> None:
        execution = action.execution
        try:
            match action:
                case Claim():
                    await self._claim(execution)
                case Expire():
                    waited = f"no slot became free within {self._config.queue_timeout_seconds:g} s"
                    await self._fail(execution, FailureType.QUEUE_TIMEOUT, waited)
                case Release():
                    released = Released(at=now(), nonce=nonce(), reason="its replica is gone")
                    await self._log.append(execution.id, execution.seq, [released])
                case Lose() if execution.kill_requested:
                    await self._log.append(execution.id, execution.seq, [Killed(at=now(), nonce=nonce())])
                case Lose():
                    lost = "its replica is gone; the code may have run up to its deadline"
                    await self._fail(execution, FailureType.LOST, lost)
        except Conflict:
            logger.info("%s has moved on, %s is decided anew", execution.id, type(action).__name__)
        await self._look_again(execution.id)

    async def _claim(self, execution: Execution) -> None:
        """Runs the oldest queued execution in the slot that the backlog has got."""
        slot = self._line.slot
        if slot is None or self._line.execution_id != execution.id:
            self._leave_line()
            return
        self._line = _Line()
        try:
            claimed = await claim(self._log, execution.id, self._runner.config.replica)
        except BaseException:
            self._slots.release(slot)
            raise
        if claimed is None:
            self._slots.release(slot)
        else:
            self._runner.start_claimed(*claimed, slot)

    def _leave_line(self) -> None:
        """Gives back the backlog's slot: what it was for has gone."""
        if self._line.slot is not None:
            self._slots.release(self._line.slot)
        self._line = _Line()
        self._news.announce()

    async def _fail(self, execution: Execution, kind: FailureType, error: str) -> None:
        failed = Failed(at=now(), nonce=nonce(), error_type=kind, error=error)
        await self._log.append(execution.id, execution.seq, [failed])

    async def _look_again(self, execution_id: str) -> None:
        events = await self._log.read(execution_id)
        if events:
            self._see(fold(execution_id, events))
        self._news.announce()

    async def _retire_ended(self) -> None:
        """Blobs go first, the log last: whoever still finds the log may find its output gone, never the reverse."""
        ttl = self._config.cleanup_ttl_seconds
        while True:
            try:
                due = await self._log.ended_before(now() - timedelta(seconds=ttl), RETIRE_AT_ONCE)
                for execution_id in due:
                    await self._blobs.delete(payload_blob(execution_id))
                    await self._blobs.delete(output_blob(execution_id))
                    await self._log.retire(execution_id)
            except Unavailable as error:
                logger.error("ended executions cannot be retired now: %s", error)
                due = ()
            if len(due) < RETIRE_AT_ONCE:
                await anyio.sleep(max(1.0, min(30.0, ttl / 10)))
