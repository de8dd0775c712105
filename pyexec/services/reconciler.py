"""Makes every execution end: places what waits, gives back or writes off what a dead replica left, and forgets
what has ended long ago. It looks at the log, decides by `plan`, and acts; the replica that leads does it."""

import logging
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta

import anyio
from attrs import frozen

from pyexec.aio import Broadcast, FailureLog
from pyexec.correlation import correlated
from pyexec.domain.events import Claimed, Event, Failed, FailureType, Killed, Released
from pyexec.domain.execution import Execution, Phase, fold
from pyexec.domain.plan import (
    Action,
    Claim,
    ClusterState,
    Expire,
    MarkLost,
    OpenExecution,
    Release,
    next_deadline,
    plan,
)
from pyexec.errors import Conflict, CorruptLog, Unavailable
from pyexec.ports import BlobStore, EventLog, Member, Membership
from pyexec.services.active_runs import ActiveRuns
from pyexec.services.clock import nonce, now
from pyexec.services.corrupt_logs import CorruptLogReporter
from pyexec.services.output_store import files_blob, output_blob, payload_blob
from pyexec.services.slots import Slots

logger = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
RETIRE_AT_ONCE = 100
REPAIR_SECONDS = 3600.0
IN_LINE = 1
"""How many executions a replica is given beyond its free slots, so that what was accepted for later stands in the
same line as the callers who wait."""


@frozen(kw_only=True)
class ReconcilerConfig:
    """The operator's bounds, and the replica that this one runs on."""

    replica: str
    queue_timeout_seconds: float
    cleanup_ttl_seconds: float
    adoption_seconds: float


class Reconciler:
    """`run` it as long as the replica lives; it acts while it leads."""

    def __init__(
        self,
        config: ReconcilerConfig,
        *,
        log: EventLog,
        blobs: BlobStore,
        membership: Membership,
        slots: Slots,
        active_runs: ActiveRuns,
        corrupt_logs: CorruptLogReporter,
    ) -> None:
        self._config = config
        self._corrupt_logs = corrupt_logs
        self._log = log
        self._blobs = blobs
        self._membership = membership
        self._slots = slots
        self._active_runs = active_runs
        self._lengths: dict[str, int] = {}
        self._sightings: dict[str, OpenExecution] = {}
        self._damaged: set[str] = set()
        self._seen: dict[str, float] = {}
        self._members: Mapping[str, Member] = {}
        self._gone: dict[str, float] = {}
        self._news = Broadcast()
        self._acting = FailureLog(logger, "reconciling")
        self.leading = anyio.Lock()
        """Locked as long as it leads."""

    @property
    def backlog(self) -> int:
        """How many accepted executions nobody has claimed yet, as far as the leader knows; 0 for all others."""
        if not self.leading.locked():
            return 0
        return sum(seen.execution.phase is Phase.QUEUED for seen in self._sightings.values())

    async def run(self) -> None:
        """Stands for leader, and reconciles whenever it leads, until cancelled."""
        standing = FailureLog(logger, "standing for leader")
        while True:
            try:
                async with self._membership.lead(), self.leading:
                    standing.recovered()
                    logger.info("this replica leads")
                    await self._lead()
                logger.info("this replica leads no more")
            except Unavailable as error:
                standing.failed(error)
                await anyio.sleep(RETRY_SECONDS)

    async def _lead(self) -> None:
        self._lengths, self._sightings, self._seen, self._gone = {}, {}, {}, {}
        self._damaged = set()
        self._members = (await self._membership.members()).members
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch_members, name="watch members")
            tasks.start_soon(self._watch_log, name="watch open executions")
            tasks.start_soon(self._retire_ended, name="retire ended executions")
            tasks.start_soon(self._repair, name="repair indexes")
            while True:
                news = self._news.next_event()
                with anyio.move_on_after(await self._reconcile()):
                    await news.wait()

    async def _reconcile(self) -> float | None:
        """One round; how long the next may wait at most, in seconds."""
        try:
            for action in plan(self._view()):
                with correlated(action.execution.id):
                    await self._act(action)
                self._acting.recovered()
        except Unavailable as error:
            self._acting.failed(error)
            return RETRY_SECONDS
        deadline = next_deadline(self._view())
        return None if deadline is None else max(0.0, deadline - anyio.current_time())

    def _view(self) -> ClusterState:
        return ClusterState(
            now=anyio.current_time(),
            open=tuple(self._sightings.values()),
            capacity=self._room(),
            gone_since=dict(self._gone),
            queue_timeout_seconds=self._config.queue_timeout_seconds,
            adoption_seconds=self._config.adoption_seconds,
        )

    def _room(self) -> dict[str, int]:
        """What each living replica may be given: its slots and a place in line, less what it owns."""
        owned = Counter(sighting.execution.owner for sighting in self._sightings.values())
        room = {name: member.slots + IN_LINE - owned[name] for name, member in self._members.items()}
        here = self._config.replica
        if here in room:  # what runs here is known exactly, and is not among the sightings
            room[here] = self._slots.free + IN_LINE - owned[here]
        return room

    async def _watch_members(self) -> None:
        version: int | None = None
        watching = FailureLog(logger, "watching the members")
        while True:
            try:
                found = await self._membership.members(version)
                watching.recovered()
                version, self._members = found.version, found.members
                self._note_gone()
                self._news.notify_all()
                await self._blobs.sweep(found.members.keys(), self._exists)
            except Unavailable as error:
                watching.failed(error)
                await anyio.sleep(RETRY_SECONDS)

    async def _watch_log(self) -> None:
        version: int | None = None
        watching = FailureLog(logger, "watching the open executions")
        while True:
            try:
                opened = await self._log.open_executions(version)
                watching.recovered()
                await self._look_at(opened.lengths)
                version = opened.version  # only now: what could not be read is looked at again
            except Unavailable as error:
                watching.failed(error)
                await anyio.sleep(RETRY_SECONDS)

    async def _look_at(self, lengths: Mapping[str, int]) -> None:
        """Takes note of what is open and not run here: that needs no reconciling."""
        for gone in self._seen.keys() - lengths.keys():
            del self._seen[gone]
            self._sightings.pop(gone, None)
        for execution_id, length in lengths.items():
            known = self._lengths.get(execution_id) == length
            if self._runs_here(execution_id, length):
                self._sightings.pop(execution_id, None)
            elif not known or execution_id not in self._sightings.keys() | self._damaged:
                await self._look_again(execution_id)
        self._lengths = dict(lengths)
        self._note_gone()
        self._news.notify_all()

    async def _look_again(self, execution_id: str) -> None:
        try:
            events = await self._log.read(execution_id)
            execution = fold(execution_id, events) if events else None
            self._damaged.discard(execution_id)
        except CorruptLog as error:
            self._corrupt_logs.report(execution_id, error)
            self._damaged.add(execution_id)
            execution = None
        if (
            execution is None
            or execution.phase is Phase.ENDED
            or self._runs_here(execution_id, execution.seq)
            or (execution_id in self._active_runs and execution.owner == self._config.replica)
        ):
            self._sightings.pop(execution_id, None)
            return
        since = self._seen.setdefault(execution_id, anyio.current_time())
        self._sightings[execution_id] = OpenExecution(execution=execution, waiting_since=since)

    def _runs_here(self, execution_id: str, length: int) -> bool:
        """Whether this replica carries it out, and knows all that has happened to it: if not, it may have been
        taken over, and the log has to be asked."""
        run = self._active_runs.get(execution_id)
        return (
            run is not None
            and run.seq >= length
            and run.known().phase is not Phase.QUEUED
            and run.known().is_for(self._config.replica)
        )

    def _note_gone(self) -> None:
        """Since when each owner is known to be gone."""
        owners = {sighting.execution.owner for sighting in self._sightings.values()}
        missing = {owner for owner in owners if owner is not None and owner not in self._members}
        self._gone = {owner: self._gone.get(owner, anyio.current_time()) for owner in missing}

    async def _act(self, action: Action) -> None:
        execution = action.execution
        try:
            match action:
                case Claim():
                    claimed = Claimed(at=now(), nonce=nonce(), replica=action.replica)
                    await self._log.append(execution.id, execution.seq, [claimed], notify=action.replica)
                case Expire():
                    waited = f"no slot became free within {self._config.queue_timeout_seconds:g} s"
                    await self._log.append(
                        execution.id, execution.seq, [_failed(FailureType.QUEUE_TIMEOUT, waited)]
                    )
                case Release():
                    released = Released(at=now(), nonce=nonce(), reason="its replica is gone")
                    await self._log.append(execution.id, execution.seq, [released], fence=execution.owner)
                    self._seen[execution.id] = anyio.current_time()  # it had its turn, and waits for another
                case MarkLost():
                    owner = execution.owner or execution.pinned
                    await self._log.append(
                        execution.id, execution.seq, [_written_off(execution)], fence=owner
                    )
        except Conflict as error:
            logger.info("%s is decided anew: %s", execution.id, error)
        except CorruptLog as error:
            self._corrupt_logs.report(execution.id, error)
        await self._look_again(execution.id)
        self._note_gone()

    async def _repair(self) -> None:
        """Indexes are made anew from the events now and then, and first whenever somebody begins to lead; what a
        vanished replica had begun to upload is removed."""
        while True:
            try:
                unreadable = await self._log.rebuild_index()
                for execution_id, corrupt_logs in unreadable.items():
                    self._corrupt_logs.report(execution_id, corrupt_logs)
                logger.info("the indexes agree with the events")
                await self._blobs.sweep(self._members.keys(), self._exists)
            except Unavailable as error:
                logger.error("indexes are not repaired now: %s", error)
            await anyio.sleep(REPAIR_SECONDS)

    async def _exists(self, execution_id: str) -> bool:
        try:
            return bool(await self._log.read(execution_id))
        except CorruptLog:
            return True

    async def _retire_ended(self) -> None:
        """Blobs go first, the log last: whoever still finds the log may find its output gone, never the reverse."""
        ttl = self._config.cleanup_ttl_seconds
        retiring = FailureLog(logger, "retiring ended executions")
        while True:
            try:
                due = await self._log.ended_before(now() - timedelta(seconds=ttl), RETIRE_AT_ONCE)
                for execution_id in due:
                    await self._retire(execution_id)
                retiring.recovered()
            except Unavailable as error:
                retiring.failed(error)
                due = ()
            if len(due) < RETIRE_AT_ONCE:
                await anyio.sleep(max(1.0, min(30.0, ttl / 10)))

    async def _retire(self, execution_id: str) -> None:
        try:
            for blob in (payload_blob, output_blob, files_blob):
                await self._blobs.delete(blob(execution_id))
            await self._log.retire(execution_id)
        except CorruptLog as error:
            self._corrupt_logs.report(execution_id, error)
        except Conflict as error:
            logger.error("%s is not retired, the index is wrong about it: %s", execution_id, error)


def _failed(kind: FailureType, error: str) -> Failed:
    return Failed(at=now(), nonce=nonce(), error_type=kind, error=error)


def _written_off(execution: Execution) -> Event:
    """The end of what a vanished replica has left, and cannot run elsewhere."""
    if execution.kill_requested:
        return Killed(at=now(), nonce=nonce())
    if execution.phase is Phase.RUNNING:
        return _failed(FailureType.LOST, "its replica is gone; the code may have run up to its deadline")
    return _failed(FailureType.LOST, "its replica is gone, and its archive with it; the code has not run")
