"""The runs that this replica handles: their events, their output so far, and the requests to kill them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import anyio
from attrs import define, field

from pyexec.aio import Broadcast
from pyexec.domain.events import Event
from pyexec.domain.execution import Execution, Phase, apply, is_legal
from pyexec.domain.output_log import OutputLog, Stream
from pyexec.domain.traceback import TracebackParser
from pyexec.errors import Conflict, ShuttingDown
from pyexec.sandbox.reports import ReportReader
from pyexec.services.output_files import OutputFileSpool


@define(eq=False)
class Run:
    """One execution on this replica, from its claim to its terminal event. Any number of readers may follow it."""

    id: str
    events: list[Event] = field(factory=list)
    output_log: OutputLog = field(factory=OutputLog)
    output_files: OutputFileSpool | None = None
    """The files that the guest sent after the program ended, if the spec asked for files."""
    changes: Broadcast = field(factory=Broadcast)
    inactive: anyio.Event = field(factory=anyio.Event)
    """Set once this replica no longer handles the run: it has ended, or another replica owns it."""
    kill_requested: anyio.Event = field(factory=anyio.Event)
    traceback: TracebackParser | None = None
    """Reads the program's stderr. None before its first output there."""
    reports: ReportReader | None = None
    """Reads the program's reports. None before the start, and if the spec asks for none."""
    preparation: anyio.CancelScope = field(factory=anyio.CancelScope)
    """The scope of everything before the start. A kill request, a change of owner and a shutdown cancel it."""
    _execution: Execution | None = None
    _following: anyio.CancelScope | None = None
    _on_kill: Callable[[], object] | None = None

    @property
    def seq(self) -> int:
        """The number of events known to be in the log."""
        return len(self.events)

    @property
    def execution(self) -> Execution:
        """The state after the known events. Raises `ValueError` before the first `record`."""
        if self._execution is None:
            raise ValueError(f"no event of {self.id} is recorded yet")
        return self._execution

    @property
    def has_ended(self) -> bool:
        """True once the terminal event is durable."""
        return self._execution is not None and self._execution.phase is Phase.ENDED

    @property
    def is_cell(self) -> bool:
        """True if, by the known events, this is a cell of an interpreter session."""
        return self._execution is not None and self._execution.spec.session_id is not None

    @property
    def is_movable(self) -> bool:
        """True if another replica can start this run, because its archive is in the blob store."""
        return self._execution is not None and self._execution.payload is not None

    def record(self, events: Iterable[Event]) -> Execution:
        """Record events that are durable now, and wake all readers."""
        for event in events:
            self._execution = apply(self.id, self._execution, event)
            self.events.append(event)
        if self.execution.kill_requested:
            self._request_kill()
        if self.has_ended:
            self._set_inactive()
        self.changes.notify_all()
        return self.execution

    def catch_up(self, events: Sequence[Event]) -> Execution:
        """Record the events that are not recorded yet. `events` are all events of the log."""
        return self.record(events[self.seq :]) if len(events) > self.seq else self.execution

    def detach(self) -> None:
        """Stop handling the run here: cancel its preparation, and wake its readers, which then read the log."""
        self._set_inactive()
        self.preparation.cancel()
        self.changes.notify_all()

    def cancel_if_movable(self) -> None:
        """Cancel the preparation if another replica can start this run. A run that has started goes on."""
        if self.is_movable:
            self.preparation.cancel()

    @contextmanager
    def followed(self, on_kill: Callable[[], object]) -> Iterator[None]:
        """Cancel the block as soon as the run is inactive. Call `on_kill` once if a kill is requested before or within
        the block."""
        with anyio.CancelScope() as self._following:
            self._on_kill = on_kill
            try:
                if self.kill_requested.is_set():
                    on_kill()
                if self.inactive.is_set():
                    self._following.cancel()
                yield
            finally:
                self._following = self._on_kill = None

    def _request_kill(self) -> None:
        if self._on_kill is not None and not self.kill_requested.is_set():
            self._on_kill()
        self.kill_requested.set()
        self.preparation.cancel()

    def _set_inactive(self) -> None:
        self.inactive.set()
        if self._following is not None:
            self._following.cancel()

    def write_output(self, stream: Stream, data: bytes) -> None:
        """Append output, and wake all readers."""
        self.output_log.append(stream, data)
        if stream is Stream.STDERR:
            if self.traceback is None:
                entrypoint = self._execution.spec.entrypoint if self._execution else None
                self.traceback = TracebackParser(script=entrypoint or "main.py")
            self.traceback.feed(data)
        self.changes.notify_all()

    def check_may_append(self, replica: str, event: Event) -> None:
        """Raise `Conflict` if, by the recorded events, `replica` does not own the run or `event` is not legal."""
        if self._execution is not None and not (
            self._execution.is_for(replica) and is_legal(self._execution, event)
        ):
            state = f"{self._execution.phase}, owned by {self._execution.owner}"
            raise Conflict(f"{self.id} has changed meanwhile: it is {state}")


class ActiveRuns:
    """The runs that this replica handles, by execution id. `on_remove` gets the output of each run that is removed."""

    def __init__(self, on_remove: Callable[[OutputLog], object] = lambda _: None) -> None:
        self._runs: dict[str, Run] = {}
        self._draining = False
        self._on_remove = on_remove

    def get(self, execution_id: str) -> Run | None:
        """Return the run, or None if this replica does not handle it."""
        return self._runs.get(execution_id)

    def add(self, run: Run) -> None:
        """Add a run at its claim."""
        self._runs[run.id] = run
        if self._draining:
            run.cancel_if_movable()

    def remove(self, run: Run) -> None:
        """Remove a run after its end."""
        if self._runs.pop(run.id, None) is not None:
            self._on_remove(run.output_log)

    @contextmanager
    def appending(self, run: Run, events: Sequence[Event]) -> Iterator[None]:
        """Record `events` if the block has appended them. If it raises, remove the run, unless it was active before.

        The run is active within the block, because other tasks look for it as soon as an event is in the log."""
        after = [*run.events, *events]
        was_active = run.id in self
        self.add(run)
        try:
            yield
        except BaseException:
            if not was_active:
                self.remove(run)
                run.detach()
            raise
        run.catch_up(after)

    def begin_drain(self) -> None:
        """Cancel the preparation of all runs that another replica can start, from now on."""
        self._draining = True
        for run in self._runs.values():
            run.cancel_if_movable()

    def check_open(self, run: Run) -> None:
        """Raise `ShuttingDown` during a drain, unless the execution is accepted and can start only here."""
        if self._draining and (not run.events or run.is_movable):
            raise ShuttingDown

    async def until_ended(self) -> None:
        """Wait until no run is active, also of those that begin meanwhile. `Sessions.drain` waits for cells."""
        while run := next(
            (r for r in self._runs.values() if not r.is_cell and not r.inactive.is_set()), None
        ):
            await run.inactive.wait()

    def __len__(self) -> int:
        return len(self._runs)

    def __contains__(self, execution_id: str) -> bool:
        return execution_id in self._runs

    def all(self) -> Sequence[Run]:
        """Return all runs, in the order of their claims."""
        return tuple(self._runs.values())
