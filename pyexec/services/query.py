"""Answering for any execution: its state, its output, its events as they come."""

from collections.abc import AsyncIterator, Sequence

import anyio
from attrs import frozen

from pyexec.domain.events import Event, Terminal
from pyexec.domain.execution import Execution, Phase, Status, apply, fold
from pyexec.domain.journal import Journal, Stream
from pyexec.domain.result import Result, Summary, result_of, summarize
from pyexec.errors import UnknownExecution
from pyexec.ports import BlobStore, EventLog
from pyexec.services.live import Live, Run
from pyexec.services.outputs import load_output


@frozen(kw_only=True)
class Position:
    """How far a reader of an execution's events has come: events, and bytes of output."""

    seq: int = 0
    offset: int = 0


@frozen(kw_only=True)
class Happened:
    """A lifecycle event, with the position after it."""

    position: Position
    event: Event


@frozen(kw_only=True)
class Chunk:
    """Output of one stream, with the position after it."""

    position: Position
    stream: Stream
    data: bytes


@frozen(kw_only=True)
class End:
    """The last of an execution's events, with the whole result."""

    position: Position
    event: Terminal
    result: Result


Item = Happened | Chunk | End


class Queries:
    """Reads only. Raises `UnknownExecution` for an id that nobody knows, `Unavailable` when the log is away."""

    def __init__(self, *, log: EventLog, blobs: BlobStore, live: Live) -> None:
        self._log = log
        self._blobs = blobs
        self._live = live

    async def execution(self, execution_id: str) -> Execution:
        """Its state as the log has it."""
        events = await self._log.read(execution_id)
        if not events:
            raise UnknownExecution(f"there is no execution {execution_id}, or its retention is over")
        return fold(execution_id, events)

    async def result(self, execution_id: str, wait_seconds: float = 0) -> Result:
        """The result as it stands once the execution has ended, or after `wait_seconds`."""
        execution = await self.execution(execution_id)
        if execution.phase is not Phase.ENDED and wait_seconds > 0:
            with anyio.move_on_after(wait_seconds):
                await self._until_ended(execution)
            execution = await self.execution(execution_id)
        return result_of(execution, await self._journal(execution))

    async def ended(self, execution_id: str) -> Result:
        """The result, however long that takes."""
        await self._until_ended(await self.execution(execution_id))
        return await self.result(execution_id)

    async def journal(self, execution_id: str) -> Journal:
        """What it has printed so far."""
        return await self._journal(await self.execution(execution_id))

    def result_of_run(self, run: Run) -> Result:
        """The result of a run of this replica, from memory."""
        return result_of(run.known(), run.journal)

    async def page(
        self, status: Status | None, limit: int, cursor: str | None
    ) -> tuple[Sequence[Summary], str | None]:
        """Executions, newest first, without their output; and where the next page begins."""
        page = await self._log.page(status=status, limit=limit, cursor=cursor)
        logs = [(execution_id, await self._log.read(execution_id)) for execution_id in page.ids]
        summaries = [summarize(fold(execution_id, events)) for execution_id, events in logs if events]
        return summaries, page.next_cursor

    async def items(self, execution_id: str, after: Position) -> AsyncIterator[Item]:
        """Everything after a position, in order, as it happens, up to the end."""
        await self.execution(execution_id)
        if (run := self._live.get(execution_id)) is not None:
            return self.items_of_run(run, after)
        return self._items_of_log(execution_id, after)

    async def items_of_run(self, run: Run, after: Position) -> AsyncIterator[Item]:
        """The same for a run of this replica, from memory."""
        at = after
        while True:
            changed = run.changes.coming()
            async for item in _known_items(run.id, run.events, run.journal, at):
                at = item.position
                yield item
            if run.ended.is_set() and at.seq >= run.seq:
                return
            await changed.wait()

    async def _items_of_log(self, execution_id: str, after: Position) -> AsyncIterator[Item]:
        """The same from the log, for what is waiting, or has ended."""
        at = after
        while True:
            if (run := self._live.get(execution_id)) is not None:
                async for item in self.items_of_run(run, at):
                    yield item
                return
            events = await self._log.read(execution_id)
            if not events:
                return
            execution = fold(execution_id, events)
            journal = await load_output(self._blobs, execution)
            async for item in _known_items(execution_id, events, journal, at):
                at = item.position
                yield item
            if execution.phase is Phase.ENDED:
                return
            await self._log.wait(execution_id, len(events))

    async def _journal(self, execution: Execution) -> Journal:
        if execution.phase is not Phase.ENDED and (run := self._live.get(execution.id)) is not None:
            return run.journal
        return await load_output(self._blobs, execution)

    async def _until_ended(self, execution: Execution) -> None:
        while execution.phase is not Phase.ENDED:
            await self._log.wait(execution.id, execution.seq)
            execution = await self.execution(execution.id)


async def _known_items(
    execution_id: str, events: Sequence[Event], journal: Journal, at: Position
) -> AsyncIterator[Item]:
    """What of `events` and `journal` comes after a position; the terminal event after all output."""
    state: Execution | None = None
    seq, offset = at.seq, at.offset
    for number, event in enumerate(tuple(events), start=1):
        state = apply(execution_id, state, event)
        if number > seq and not isinstance(event, Terminal):
            seq = number
            yield Happened(position=Position(seq=seq, offset=offset), event=event)
    for stream, data in list(journal.since(offset)):
        offset += len(data)
        yield Chunk(position=Position(seq=seq, offset=offset), stream=stream, data=data)
    if state is not None and state.terminal is not None and seq < state.seq:
        yield End(
            position=Position(seq=state.seq, offset=offset),
            event=state.terminal,
            result=result_of(state, journal),
        )
