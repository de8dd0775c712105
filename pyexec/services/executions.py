"""Answer callers about an execution, wherever it runs: its state, result, output and events. Kill it on request."""

import logging
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise

import anyio

from pyexec.domain.event_stream import Item, OutputItem, Position, items_after
from pyexec.domain.execution import Execution, Phase, Status, fold, request_kill
from pyexec.domain.output_log import OutputLog, Stream
from pyexec.domain.result import Result, Summary, result_of, summarize
from pyexec.errors import Conflict, CorruptLog, Unavailable, UnknownExecution
from pyexec.ports import BlobStore, Caller, EventLog, Peers
from pyexec.services.active_runs import ActiveRuns, Run
from pyexec.services.clock import nonce, now
from pyexec.services.event_log import CorruptLogReporter
from pyexec.services.output_store import load_output

logger = logging.getLogger(__name__)

PEER_RETRY_SECONDS = 1.0
KILL_WAIT_SECONDS = 10.0
SCAN_MAX = 1000
"""How many executions are read for one page. Without a limit, a tenant with few executions among many of other tenants
could keep the event log busy with each request."""


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
    ) -> None:
        self._log = log
        self._blobs = blobs
        self._active_runs = active_runs
        self._peers = peers
        self._corrupt_logs = corrupt_logs

    async def get(self, execution_id: str, caller: Caller) -> Execution:
        """Return the state of an execution, computed from its log. Those of other tenants do not exist for a caller."""
        try:
            events = await self._log.read(execution_id)
            execution = fold(execution_id, events) if events else None
        except CorruptLog as error:
            if caller.tenant is None:
                raise CorruptLog(f"the log of {execution_id} cannot be read: {error}") from error
            self._corrupt_logs.report(
                execution_id, error
            )  # it may belong to another tenant, so give no details
            raise CorruptLog(f"the log of {execution_id} cannot be read; see the server log") from error
        if execution is None or not caller.may_access(execution):
            raise UnknownExecution(
                f"execution {execution_id} does not exist, or was deleted after its retention"
            )
        return execution

    async def result(self, execution_id: str, caller: Caller, wait_seconds: float = 0) -> Result:
        """Return the result. If the execution has not ended, wait for that, at most `wait_seconds`."""
        execution = await self.get(execution_id, caller)
        if execution.phase is not Phase.ENDED and wait_seconds > 0:
            execution = await self._ended_within(wait_seconds, execution, caller)
        return result_of(execution, await self._output_log(execution, caller))

    async def final_result(self, execution_id: str, caller: Caller) -> Result:
        """Wait until the execution has ended, and return its result."""
        execution = await self._until_ended(await self.get(execution_id, caller), caller)
        return result_of(execution, await self._output_log(execution, caller))

    async def output_log(self, execution_id: str, caller: Caller) -> OutputLog:
        """Return the output so far."""
        return await self._output_log(await self.get(execution_id, caller), caller)

    def result_of_run(self, run: Run) -> Result:
        """Return the result of a run of this replica, from memory."""
        return result_of(run.execution, run.output_log)

    async def page(
        self, status: Status | None, limit: int, cursor: str | None, caller: Caller
    ) -> tuple[Sequence[Summary], str | None]:
        """Return executions without their output, newest first, and the cursor of the next page.

        Executions of other tenants, and those whose log cannot be read, are left out. After `SCAN_MAX` executions the
        page ends, even if it has fewer than `limit`."""
        batch = limit if caller.tenant is None else SCAN_MAX
        page = await self._log.list_executions(status=status, limit=batch, cursor=cursor)
        summaries: list[Summary] = []
        for execution_id, next_id in pairwise([*page.ids, None]):
            if (
                execution_id is not None
                and (summary := await self._summary(execution_id, caller)) is not None
            ):
                summaries.append(summary)
            if len(summaries) == limit and next_id is not None:
                return summaries, execution_id
        return summaries, page.next_cursor

    async def _summary(self, execution_id: str, caller: Caller) -> Summary | None:
        try:
            events = await self._log.read(execution_id)
            execution = fold(execution_id, events) if events else None
        except CorruptLog as error:
            self._corrupt_logs.report(execution_id, error)
            return None
        return summarize(execution) if execution is not None and caller.may_access(execution) else None

    async def items(
        self, execution_id: str, after: Position, caller: Caller, *, follow: bool = True
    ) -> AsyncIterator[Item]:
        """Yield events and output after a position, in order. With `follow`, continue until the execution ends."""
        await self.get(execution_id, caller)
        return self.known_items(execution_id, after, caller, follow=follow)

    async def known_items(
        self, execution_id: str, after: Position, caller: Caller, *, follow: bool = True
    ) -> AsyncIterator[Item]:
        """Yield the same as `items`, without a check that the execution exists.

        Items come from this replica's memory if it owns the run. Otherwise events come from the log, and the output of
        a running program comes from its owner."""
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
            await self._wait_for_change(execution, caller)

    async def _items_of_run(self, run: Run, after: Position, *, follow: bool = True) -> AsyncIterator[Item]:
        """Yield the items of a run of this replica, from memory."""
        at = after
        while True:
            changed = run.changes.next_event()
            for item in items_after(run.id, tuple(run.events), run.output_log, at):
                at = item.position
                yield item
            if run.inactive.is_set() or not follow:
                return
            await changed.wait()

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
