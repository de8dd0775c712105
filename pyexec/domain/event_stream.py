"""Merge an execution's events and its output into one stream, which a reader can resume at any position."""

from collections.abc import Iterable, Iterator, Sequence

from attrs import frozen

from pyexec.domain.events import Event, Preparing, Running, Terminal
from pyexec.domain.execution import Execution, apply
from pyexec.domain.output_log import OutputLog, Stream
from pyexec.domain.result import Result, result_without_output


@frozen(kw_only=True)
class Position:
    """A position in the stream: the number of events, and the number of output bytes since `preparing` or `running`."""

    seq: int = 0
    offset: int = 0


@frozen(kw_only=True)
class LifecycleItem:
    """A lifecycle event, and the position after it."""

    position: Position
    event: Event


@frozen(kw_only=True)
class OutputItem:
    """Bytes of one output stream, and the position after them."""

    position: Position
    stream: Stream
    data: bytes


@frozen(kw_only=True)
class EndItem:
    """The terminal event, the result without its output, and the output. It is the last item of a stream."""

    position: Position
    event: Terminal
    result: Result
    output_log: OutputLog


Item = LifecycleItem | OutputItem | EndItem


def items_after(
    execution_id: str, events: Sequence[Event], output_log: OutputLog, after: Position
) -> Iterator[Item]:
    """Yield the items after a position, in the order in which they happened.

    Output of the setup comes before `running`, output of the program after it, and the terminal event last. The offset
    of a position starts again at 0 after `preparing` and after `running`, so offsets in the program's output do not
    depend on the length of the setup's output."""
    state: Execution | None = None
    at = after
    for number, event in enumerate(events, start=1):
        state = apply(execution_id, state, event)
        if number <= at.seq or isinstance(event, Terminal):
            continue
        if isinstance(event, Running):
            for chunk in _chunks(output_log.since(at.offset, output_log.setup_bytes), at):
                yield chunk
        restarts = isinstance(event, Preparing | Running)
        at = Position(seq=number, offset=0 if restarts else at.offset)
        yield LifecycleItem(position=at, event=event)
    if state is None:
        return
    begin = output_log.setup_bytes if state.started_at is not None else 0
    for chunk in _chunks(output_log.since(begin + at.offset), at):
        at = chunk.position
        yield chunk
    if state.terminal is not None and at.seq < state.seq:
        yield EndItem(
            position=Position(seq=state.seq, offset=at.offset),
            event=state.terminal,
            result=result_without_output(state, output_log),
            output_log=output_log,
        )


def _chunks(output: Iterable[tuple[Stream, bytes]], at: Position) -> Iterator[OutputItem]:
    offset = at.offset
    for stream, data in output:
        offset += len(data)
        yield OutputItem(position=Position(seq=at.seq, offset=offset), stream=stream, data=data)
