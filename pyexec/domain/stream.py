"""An execution's events and output as one stream, with positions at which a reader can go on."""

from collections.abc import Iterator, Sequence

from attrs import frozen

from pyexec.domain.events import Event, Terminal
from pyexec.domain.execution import Execution, apply
from pyexec.domain.journal import Journal, Stream
from pyexec.domain.result import Result, result_of


@frozen(kw_only=True)
class Position:
    """How far a reader has come: events, and bytes of output."""

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


def items_after(
    execution_id: str, events: Sequence[Event], journal: Journal, after: Position
) -> Iterator[Item]:
    """What of `events` and `journal` comes after a position; the terminal event after all output."""
    state: Execution | None = None
    seq, offset = after.seq, after.offset
    for number, event in enumerate(events, start=1):
        state = apply(execution_id, state, event)
        if number > seq and not isinstance(event, Terminal):
            seq = number
            yield Happened(position=Position(seq=seq, offset=offset), event=event)
    for stream, data in journal.since(offset):
        offset += len(data)
        yield Chunk(position=Position(seq=seq, offset=offset), stream=stream, data=data)
    if state is not None and state.terminal is not None and seq < state.seq:
        yield End(
            position=Position(seq=state.seq, offset=offset),
            event=state.terminal,
            result=result_of(state, journal),
        )
