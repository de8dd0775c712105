"""Answer callers about an execution, wherever it runs: its state, result, output and events. Kill it on request."""

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager

import anyio

from pyexec.aio import Turns
from pyexec.domain.event_stream import Item, OutputItem, Position, items_after
from pyexec.domain.events import Event
from pyexec.domain.execution import Execution, Phase, fold, request_kill
from pyexec.domain.output_log import PIECE_BYTES, OutputLog, Stream
from pyexec.domain.timeline import Timeline, timeline
from pyexec.errors import Conflict, CorruptLog, Unavailable, UnknownExecution
from pyexec.ports import BlobStore, Caller, EventLog, Peers
from pyexec.services.active_runs import ActiveRuns, Run
from pyexec.services.clock import nonce, now
from pyexec.services.event_log import CorruptLogReporter
from pyexec.services.idempotency import key_hash
from pyexec.services.large_logs import LogReader
from pyexec.services.listing import Listing
from pyexec.services.output_store import OutputMemory, load_output

logger = logging.getLogger(__name__)

PEER_RETRY_SECONDS = 1.0
KILL_WAIT_SECONDS = 10.0
OUTPUT_INTERVAL_SECONDS = 0.02
"""Minimum time between two pieces of output to a reader of a running program."""
BATCH_ITEMS = 64


class Executions:
    """Answers for any execution of the deployment.

    Raises `UnknownExecution`, `Unavailable` if the event log does not answer, `CorruptLog` for an execution whose
    log cannot be read. The output of a program that runs on another replica is requested from that replica, with
    the caller's credentials."""

    def __init__(
        self,
        *,
        log: EventLog,
        blobs: BlobStore,
        active_runs: ActiveRuns,
        peers: Peers,
        corrupt_logs: CorruptLogReporter,
        memory: OutputMemory,
    ) -> None:
        self._log = log
        self._reader = LogReader(log)
        self._blobs = blobs
        self._active_runs = active_runs
        self._peers = peers
        self._corrupt_logs = corrupt_logs
        self._memory = memory
        self._key_lookups = anyio.Lock()
        self.turns = Turns()
        """The turns of all tasks that encode much for callers."""
        self.listing = Listing(log, corrupt_logs)

    async def get(self, execution_id: str, caller: Caller) -> Execution:
        """Return the state of an execution, computed from its log. Raises `UnknownExecution` for one of another tenant,
        too."""
        return (await self._read(execution_id, caller))[0]

    async def timeline(self, execution_id: str, caller: Caller) -> Timeline:
        """Return the events and phases of an execution, to show them to people. Raises as `get` does."""
        _, events = await self._read(execution_id, caller)
        return timeline(execution_id, events, now())

    async def _read(self, execution_id: str, caller: Caller) -> tuple[Execution, Sequence[Event]]:
        try:
            events = await self._reader.read(execution_id, caller)
            execution = fold(execution_id, events) if events else None
        except CorruptLog as error:
            if caller.tenant is None:
                raise CorruptLog(f"the log of {execution_id} cannot be read: {error}") from error
            # It may belong to another tenant, so give no details.
            self._corrupt_logs.report(execution_id, error)
            raise CorruptLog(f"the log of {execution_id} cannot be read; see the server log") from error
        if execution is None or not caller.may_access(execution):
            raise UnknownExecution(
                f"execution {execution_id} does not exist, or was deleted after its retention"
            )
        return execution, events

    async def find_by_key(self, key: str, tenant: str) -> str | None:
        """Return the id of the execution that a tenant's idempotency key names; None if there is none."""
        found = await self._log.find_by_key(key_hash(key, tenant))
        return None if found is None else found[0]

    async def wait_for_key(self, key: str, tenant: str) -> str:
        """Wait until a tenant's idempotency key names an execution. Return its id."""
        opened = await self._log.open_executions()
        while True:
            async with self._key_lookups:  # many callers that wait must not flood the log
                if (found := await self.find_by_key(key, tenant)) is not None:
                    return found
            known = opened.lengths.keys()
            while opened.lengths.keys() <= known:
                opened = await self._log.open_executions(opened.version)

    async def wait(self, execution_id: str, caller: Caller, seconds: float = 0) -> Execution:
        """Return the state of an execution. If it has not ended, wait for that, at most `seconds`."""
        execution = await self.get(execution_id, caller)
        if execution.phase is not Phase.ENDED and seconds > 0:
            execution = await self._ended_within(seconds, execution, caller)
        return execution

    async def wait_until_ended(self, execution_id: str, caller: Caller) -> Execution:
        """Return the state of an execution after its end."""
        return await self._until_ended(await self.get(execution_id, caller), caller)

    @asynccontextmanager
    async def output(
        self, execution: Execution, caller: Caller, *, complete: bool = False
    ) -> AsyncIterator[OutputLog]:
        """Yield the output so far. Its memory is reserved until the context exits.

        If the replica that runs the program does not answer, yield an empty log; with `complete`, raise
        `Unavailable`."""
        run = self._active_runs.get(execution.id)
        if execution.phase is not Phase.ENDED and run is not None:
            yield run.output_log
        elif not self._runs_elsewhere(execution, caller):
            async with self._stored_output(execution, caller) as output_log:
                yield output_log
        else:
            async with self._memory.reserve(caller.tenant) as reservation:
                output_log = OutputLog()
                read_output = self._peers.output if complete else self._output_elsewhere
                async for stream, data in read_output(execution, 0, caller, follow=False):
                    output_log.append(stream, data)
                self._memory.shrink(reservation, len(output_log))
                yield output_log

    @asynccontextmanager
    async def _stored_output(self, execution: Execution, caller: Caller) -> AsyncIterator[OutputLog]:
        if execution.terminal is None or execution.terminal.output.blob is None:
            yield await load_output(self._blobs, execution)
            return
        async with self._memory.reserve(caller.tenant) as reservation:
            output_log = await load_output(self._blobs, execution)
            self._memory.shrink(reservation, len(output_log))
            yield output_log

    async def items(
        self, execution_id: str, after: Position, caller: Caller, *, follow: bool = True
    ) -> AsyncGenerator[Sequence[Item], None]:
        """Yield events and output after a position, in order, in batches that take a millisecond or so to encode.

        With `follow`, continue until the execution ends. Without it, the iteration raises `Unavailable` if the replica
        that runs the program does not answer."""
        await self.get(execution_id, caller)
        return self.known_items(execution_id, after, caller, follow=follow)

    async def known_items(
        self, execution_id: str, after: Position, caller: Caller, *, follow: bool = True
    ) -> AsyncGenerator[Sequence[Item], None]:
        """Yield the same as `items`, without a check that the execution exists.

        Items come from this replica's memory if it owns the run. Otherwise events come from the log, and the output of
        a running program comes from its owner."""
        at = after
        while True:
            if (run := self._active_runs.get(execution_id)) is not None:
                async for batch in self._items_of_run(run, at, follow=follow):
                    at = batch[-1].position
                    yield batch
                if run.has_ended or not follow:
                    return
            events = await self._reader.read(execution_id, caller)
            if not events:
                return
            execution = fold(execution_id, events)
            async with self._stored_output(execution, caller) as output_log:
                async for batch in self.turns.iterate(
                    _batches(items_after(execution_id, events, output_log, at))
                ):
                    at = batch[-1].position
                    yield batch
            if self._runs_elsewhere(execution, caller):
                # With `follow`, this tries again. Without it, an early end would look like the end of the output.
                read_output = self._output_elsewhere if follow else self._peers.output
                async for stream, data in read_output(execution, at.offset, caller, follow=follow):
                    at = Position(seq=at.seq, offset=at.offset + len(data))
                    yield [OutputItem(position=at, stream=stream, data=data)]
            if execution.phase is Phase.ENDED or not follow:
                return
            await self._wait_for_change(execution, caller)

    async def _items_of_run(
        self, run: Run, after: Position, *, follow: bool = True
    ) -> AsyncGenerator[Sequence[Item], None]:
        """Yield the items of a run of this replica, from memory.

        Output is read at most every `OUTPUT_INTERVAL_SECONDS`, so that a program that prints single bytes does not
        occupy the server. Lifecycle events wait for it, too; the end does not."""
        at, next_output_at = after, 0.0
        while True:
            changed = run.changes.next_event()
            inactive = (
                run.inactive.is_set()
            )  # before the items are read: the end may come while they are yielded
            async for batch in self.turns.iterate(
                _batches(items_after(run.id, tuple(run.events), run.output_log, at))
            ):
                at = batch[-1].position
                if isinstance(batch[-1], OutputItem):
                    next_output_at = anyio.current_time() + OUTPUT_INTERVAL_SECONDS
                yield batch
            if inactive or not follow:
                return
            await changed.wait()
            with anyio.CancelScope(deadline=next_output_at):
                await run.inactive.wait()

    def _runs_elsewhere(self, execution: Execution, caller: Caller) -> bool:
        has_output = execution.phase in (Phase.PREPARING, Phase.RUNNING)
        return has_output and not caller.is_replica and execution.id not in self._active_runs

    async def _output_elsewhere(
        self, execution: Execution, offset: int, caller: Caller, *, follow: bool
    ) -> AsyncIterator[tuple[Stream, bytes]]:
        """Yield output from the owning replica. Ends early if that replica does not answer, or loses the run."""
        try:
            async for stream, data in self._peers.output(execution, offset, caller, follow=follow):
                yield stream, data
        except Unavailable as error:
            logger.warning("the output of %s is not available from its replica: %s", execution.id, error)

    async def _wait_for_change(self, execution: Execution, caller: Caller) -> None:
        if self._runs_elsewhere(execution, caller):
            with anyio.move_on_after(PEER_RETRY_SECONDS):
                await self._log.wait(execution.id, execution.seq)
        else:
            await self._log.wait(execution.id, execution.seq)

    async def _ended_within(self, seconds: float, execution: Execution, caller: Caller) -> Execution:
        """Wait until the execution has ended, at most `seconds`. Return its state."""
        with anyio.move_on_after(seconds):
            return await self._until_ended(execution, caller)
        return await self.get(execution.id, caller)

    async def _until_ended(self, execution: Execution, caller: Caller) -> Execution:
        """Wait until the execution has ended. The log is read only after a change, however many callers wait."""
        while execution.phase is not Phase.ENDED:
            await self._log.wait(execution.id, execution.seq)
            execution = await self.get(execution.id, caller)
        return execution

    async def kill(self, execution_id: str, caller: Caller) -> Execution:
        """Kill an execution. Return its state when it has ended, or after ten seconds."""
        execution = await self.request_kill(execution_id, caller)
        return await self._ended_within(KILL_WAIT_SECONDS, execution, caller)

    async def request_kill(self, execution_id: str, caller: Caller) -> Execution:
        """Append the kill request, or `killed` if no replica owns the execution. Return the state after the append."""
        while True:
            execution = await self.get(execution_id, caller)
            events = request_kill(execution, at=now(), nonce=nonce())
            if not events:
                return execution
            try:
                await self._log.append(execution_id, execution.seq, events, notify=execution.owner)
            except Conflict:
                continue  # another event came first; decide again
            if (run := self._active_runs.get(execution_id)) is not None:
                run.catch_up(await self._log.read(execution_id))
            return await self.get(execution_id, caller)


def _batches(items: Iterator[Item]) -> Iterator[Sequence[Item]]:
    """Yield the items in batches. No batch is empty."""
    batch, size = [], 0
    for item in items:
        batch.append(item)
        size += len(item.data) if isinstance(item, OutputItem) else 0
        if len(batch) >= BATCH_ITEMS or size >= PIECE_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
