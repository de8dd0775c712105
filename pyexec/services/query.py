"""Answering for any execution: its state, its output, its events as they come, wherever it runs."""

import logging
from collections.abc import AsyncIterator, Sequence

import anyio

from pyexec.domain.event_stream import Item, OutputItem, Position, items_after
from pyexec.domain.execution import Execution, Phase, Status, fold
from pyexec.domain.output_log import OutputLog, Stream
from pyexec.domain.result import Result, Summary, result_of, summarize
from pyexec.errors import CorruptLog, Unavailable, UnknownExecution
from pyexec.ports import BlobStore, Caller, EventLog, Peers
from pyexec.services.active_runs import ActiveRuns, Run
from pyexec.services.corrupt_logs import CorruptLogReporter
from pyexec.services.output_store import load_output

logger = logging.getLogger(__name__)

PEER_RETRY_SECONDS = 1.0


class Queries:
    """Reads only. Raises `UnknownExecution` for an id that nobody knows, `Unavailable` when the log is away,
    `CorruptLog` for an execution that cannot be read.

    The output of a program that runs on another replica is asked of that one, in the caller's name."""

    def __init__(
        self,
        *,
        log: EventLog,
        blobs: BlobStore,
        active_runs: ActiveRuns,
        peers: Peers,
        corrupt_logs: CorruptLogReporter,
    ) -> None:
        self._log = log
        self._blobs = blobs
        self._active_runs = active_runs
        self._peers = peers
        self._corrupt_logs = corrupt_logs

    async def execution(self, execution_id: str) -> Execution:
        """Its state as the log has it."""
        try:
            events = await self._log.read(execution_id)
            if not events:
                raise UnknownExecution(f"there is no execution {execution_id}, or its retention is over")
            return fold(execution_id, events)
        except CorruptLog as error:
            raise CorruptLog(f"the log of {execution_id} cannot be read: {error}") from error

    async def result(self, execution_id: str, caller: Caller, wait_seconds: float = 0) -> Result:
        """The result as it stands once the execution has ended, or after `wait_seconds`."""
        execution = await self.execution(execution_id)
        if execution.phase is not Phase.ENDED and wait_seconds > 0:
            with anyio.move_on_after(wait_seconds) as patience:
                execution = await self._until_ended(execution)
            if patience.cancelled_caught:
                execution = await self.execution(execution_id)
        return result_of(execution, await self._output_log(execution, caller))

    async def ended(self, execution_id: str, caller: Caller) -> Result:
        """The result, however long that takes."""
        execution = await self._until_ended(await self.execution(execution_id))
        return result_of(execution, await self._output_log(execution, caller))

    async def output_log(self, execution_id: str, caller: Caller) -> OutputLog:
        """What it has printed so far."""
        return await self._output_log(await self.execution(execution_id), caller)

    def result_of_run(self, run: Run) -> Result:
        """The result of a run of this replica, from memory."""
        return result_of(run.known(), run.output_log)

    async def page(
        self, status: Status | None, limit: int, cursor: str | None
    ) -> tuple[Sequence[Summary], str | None]:
        """Executions, newest first, without their output; and where the next page begins. What cannot be read is
        left out."""
        page = await self._log.page(status=status, limit=limit, cursor=cursor)
        summaries = []
        for execution_id in page.ids:
            try:
                if events := await self._log.read(execution_id):
                    summaries.append(summarize(fold(execution_id, events)))
            except CorruptLog as error:
                self._corrupt_logs.report(execution_id, error)
        return summaries, page.next_cursor

    async def items(
        self, execution_id: str, after: Position, caller: Caller, *, follow: bool = True
    ) -> AsyncIterator[Item]:
        """Everything after a position, in order: as it happens, up to the end, or what there is by now."""
        await self.execution(execution_id)
        return self.known_items(execution_id, after, caller, follow=follow)

    async def known_items(
        self, execution_id: str, after: Position, caller: Caller, *, follow: bool = True
    ) -> AsyncIterator[Item]:
        """The same for an execution that is known to exist.

        By turns from this replica's memory, from another replica, and from the log: wherever it is."""
        at = after
        while True:
            if (run := self._active_runs.get(execution_id)) is not None:
                async for item in self._items_of_run(run, at, follow=follow):
                    at = item.position
                    yield item
                if run.has_ended or not follow:
                    return
            events = await self._log.read(execution_id)
            if not events:
                return
            execution = fold(execution_id, events)
            output_log = await load_output(self._blobs, execution)
            for item in items_after(execution_id, events, output_log, at):
                at = item.position
                yield item
            if self._runs_elsewhere(execution, caller):
                async for stream, data in self._output_elsewhere(execution, at.offset, caller, follow=follow):
                    at = Position(seq=at.seq, offset=at.offset + len(data))
                    yield OutputItem(position=at, stream=stream, data=data)
            if execution.phase is Phase.ENDED or not follow:
                return
            await self._news(execution, caller)

    async def _items_of_run(self, run: Run, after: Position, *, follow: bool = True) -> AsyncIterator[Item]:
        """The same for a run of this replica, from memory."""
        at = after
        while True:
            changed = run.changes.next_event()
            for item in items_after(run.id, tuple(run.events), run.output_log, at):
                at = item.position
                yield item
            if run.over.is_set() or not follow:
                return
            await changed.wait()

    def _runs_elsewhere(self, execution: Execution, caller: Caller) -> bool:
        speaks = execution.phase in (Phase.PREPARING, Phase.RUNNING)
        return speaks and not caller.is_replica and execution.id not in self._active_runs

    async def _output_elsewhere(
        self, execution: Execution, offset: int, caller: Caller, *, follow: bool
    ) -> AsyncIterator[tuple[Stream, bytes]]:
        """What its owner says; ends early when that one does not answer, or hands it over."""
        try:
            async for stream, data in self._peers.output(execution, offset, caller, follow=follow):
                yield stream, data
        except Unavailable as error:
            logger.warning("the output of %s is not known here now: %s", execution.id, error)

    async def _news(self, execution: Execution, caller: Caller) -> None:
        """Returns when it is worth looking again."""
        if self._runs_elsewhere(execution, caller):
            with anyio.move_on_after(PEER_RETRY_SECONDS):
                await self._log.wait(execution.id, execution.seq)
        else:
            await self._log.wait(execution.id, execution.seq)

    async def _output_log(self, execution: Execution, caller: Caller) -> OutputLog:
        if execution.phase is Phase.ENDED:
            return await load_output(self._blobs, execution)
        if (run := self._active_runs.get(execution.id)) is not None:
            return run.output_log
        output_log = OutputLog()
        if self._runs_elsewhere(execution, caller):
            async for stream, data in self._output_elsewhere(execution, 0, caller, follow=False):
                output_log.append(stream, data)
        return output_log

    async def _until_ended(self, execution: Execution) -> Execution:
        """The execution as it ended; of a thousand who wait, each reads it once only."""
        while execution.phase is not Phase.ENDED:
            await self._log.wait(execution.id, execution.seq)
            execution = await self.execution(execution.id)
        return execution
