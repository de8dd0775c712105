"""Derive the spans of an execution from its events: one span for each phase, and one for the whole execution."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime

from attrs import evolve, field, frozen

from pyexec.domain.events import (
    Adopted,
    Claimed,
    Event,
    Failed,
    Finished,
    Killed,
    Preparing,
    Released,
    Running,
    Submitted,
    Terminal,
)
from pyexec.domain.trace_context import TraceContext

Attributes = Mapping[str, str | int]


@frozen(kw_only=True)
class Span:
    """A period of an execution. `error` is the type of the failure that ended it; None if it did not fail."""

    name: str
    start: datetime
    end: datetime
    span_id: str
    attributes: Attributes = field(factory=dict)
    events: tuple[tuple[str, datetime], ...] = ()
    error: str | None = None


@frozen(kw_only=True)
class _OpenPhase:
    name: str
    start: datetime
    span_id: str
    replica: str | None = None

    def ended(self, at: datetime) -> Span:
        replica = {} if self.replica is None else {"pyexec.replica": self.replica}
        # The events may come from two machines whose clocks differ.
        return Span(
            name=self.name,
            start=self.start,
            end=max(self.start, at),
            span_id=self.span_id,
            attributes=replica,
        )


@frozen(kw_only=True)
class Trace:
    """The trace of an execution after `seq` events: the span of the whole execution, and the phases in progress."""

    context: TraceContext
    parent: TraceContext | None
    tenant: str
    submitted_at: datetime
    seq: int
    phases: tuple[_OpenPhase, ...]
    owner: str | None = None
    history: tuple[tuple[str, datetime], ...] = ()


def begin(submitted: Submitted, context: TraceContext, parent: TraceContext | None) -> Trace:
    """Return the trace of an execution after its first event."""
    return Trace(
        context=context,
        parent=parent,
        tenant=submitted.spec.tenant,
        submitted_at=submitted.at,
        seq=1,
        phases=(_phase("queue", submitted),),
        history=(("submitted", submitted.at),),
    )


def advance(trace: Trace, event: Event) -> tuple[Trace, Sequence[Span]]:
    """Return the trace after one more event, and the spans of the phases that the event ends."""
    phases, owner, ended = trace.phases, trace.owner, True
    match event:
        case Claimed():
            owner = event.replica
            phases = (_phase("prepare", event, owner),)
        case Preparing():
            ended = False
            phases = (*phases, _phase("setup", event, owner))
        case Released():
            owner = None
            phases = (_phase("queue", event),)
        case Running():
            phases = (_phase("run", event, owner),)
        case Adopted():
            owner = event.replica
            phases = (_phase("run", event, owner),)
        case Finished() | Failed() | Killed():
            phases = ()
        case _:
            ended = False
    spans = [phase.ended(event.at) for phase in trace.phases] if ended else []
    history = (*trace.history, (type(event).__name__.lower(), event.at))
    return evolve(trace, seq=trace.seq + 1, phases=phases, owner=owner, history=history), spans


def accept_span(trace: Trace, committed_at: datetime) -> Span:
    """Return the span from the arrival of the request until its first events were durable."""
    end = max(trace.submitted_at, committed_at)
    return Span(name="accept", start=trace.submitted_at, end=end, span_id=_hash(trace.context.span_id))


def complete_span(terminal: Terminal, program_ended: datetime | None, committed_at: datetime) -> Span:
    """Return the span from the end of the program until the terminal event was durable."""
    start = terminal.at if program_ended is None else program_ended
    return Span(
        name="complete",
        start=start,
        end=max(start, committed_at),
        span_id=_hash(terminal.nonce + " complete"),
    )


def execution_span(trace: Trace, execution_id: str, terminal: Terminal, committed_at: datetime) -> Span:
    """Return the span of the whole execution. Its attributes contain no text of the program."""
    attributes: dict[str, str | int] = {
        "pyexec.execution_id": execution_id,
        "pyexec.tenant": trace.tenant,
        "pyexec.status": type(terminal).__name__.lower().replace("finished", "completed"),
    }
    if isinstance(terminal, Finished | Failed) and terminal.exit_code is not None:
        attributes["pyexec.exit_code"] = terminal.exit_code
    if trace.owner is not None:
        attributes["pyexec.replica"] = trace.owner
    return Span(
        name="execution",
        start=trace.submitted_at,
        end=max(trace.submitted_at, committed_at),
        span_id=trace.context.span_id,
        attributes=attributes,
        events=trace.history,
        error=str(terminal.error_type) if isinstance(terminal, Failed) else None,
    )


def _phase(name: str, event: Event, replica: str | None = None) -> _OpenPhase:
    return _OpenPhase(name=name, start=event.at, span_id=_hash(event.nonce), replica=replica)


def _hash(text: str) -> str:
    """Return a span id for `text`, so that a phase has the same id on every replica."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
