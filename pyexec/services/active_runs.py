"""The executions this replica is running now: what they have printed so far, and what has happened to them."""

from collections.abc import Iterable, Sequence

import anyio
from attrs import define, field

from pyexec.aio import Broadcast
from pyexec.domain.events import Event
from pyexec.domain.execution import Execution, Phase, apply, is_legal
from pyexec.domain.output_log import OutputLog, Stream
from pyexec.errors import Conflict
from pyexec.services.output_files import OutputFileSpool


@define(eq=False)
class Run:
    """One execution of this replica, from its claim to its terminal event. Any number may watch it."""

    id: str
    execution: Execution | None = None
    events: list[Event] = field(factory=list)
    output_log: OutputLog = field(factory=OutputLog)
    output_files: OutputFileSpool | None = None
    """The files that came after the program's end, where some were asked for."""
    changes: Broadcast = field(factory=Broadcast)
    over: anyio.Event = field(factory=anyio.Event)
    """Set when it has ended, or is another replica's from here on."""
    kill_wanted: anyio.Event = field(factory=anyio.Event)
    preparation: anyio.CancelScope = field(factory=anyio.CancelScope)
    """What goes on before the code starts; a kill cancels it, and so does its going to another replica."""

    @property
    def seq(self) -> int:
        """How many events are known to be in the log."""
        return len(self.events)

    def record(self, events: Iterable[Event]) -> Execution:
        """Takes note of events that are durable now."""
        for event in events:
            self.execution = apply(self.id, self.execution, event)
            self.events.append(event)
        if self.execution is None:
            raise ValueError("a run is recorded with at least one event")
        if self.execution.kill_requested:
            self.kill_wanted.set()
            self.preparation.cancel()
        if self.has_ended:
            self.over.set()
        self.changes.notify_all()
        return self.execution

    @property
    def has_ended(self) -> bool:
        """Whether its terminal event is durable."""
        return self.execution is not None and self.execution.phase is Phase.ENDED

    def detach(self) -> None:
        """It is not this replica's any more: who watches it here looks elsewhere, and nothing is prepared for it."""
        self.over.set()
        self.preparation.cancel()
        self.changes.notify_all()

    def print(self, stream: Stream, data: bytes) -> None:
        """Takes note of output."""
        self.output_log.append(stream, data)
        self.changes.notify_all()

    def check_open(self, replica: str, event: Event) -> None:
        """Raises `Conflict` unless `event` may come next, and is this replica's to write: as far as known here."""
        if self.execution is not None and not (
            self.execution.is_for(replica) and is_legal(self.execution, event)
        ):
            raise Conflict(f"{self.id} has moved on: it is {self.execution.phase} at {self.execution.owner}")

    def catch_up(self, events: Sequence[Event]) -> Execution:
        """Takes note of those of the log's `events`, from the first on, that are not known yet."""
        return self.record(events[self.seq :]) if len(events) > self.seq else self.known()

    def known(self) -> Execution:
        """The state as far as known; only after the first `record`."""
        if self.execution is None:
            raise ValueError("nothing is recorded yet")
        return self.execution


class ActiveRuns:
    """The runs of this replica by their ids."""

    def __init__(self) -> None:
        self._runs: dict[str, Run] = {}

    def get(self, execution_id: str) -> Run | None:
        """The run, unless it is not here or has ended."""
        return self._runs.get(execution_id)

    def add(self, run: Run) -> None:
        """From its claim on."""
        self._runs[run.id] = run

    def remove(self, run: Run) -> None:
        """After its end."""
        self._runs.pop(run.id, None)

    def __len__(self) -> int:
        """How many there are now."""
        return len(self._runs)

    def __contains__(self, execution_id: str) -> bool:
        return execution_id in self._runs

    def all(self) -> Sequence[Run]:
        """All runs, in the order of their claims."""
        return tuple(self._runs.values())
