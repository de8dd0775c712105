"""Derive the spans of an execution from its events: one span for each phase, and one for the whole execution.

The phases have the names of the timeline."""

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
    KillRequested,
    Preparing,
    Released,
    Running,
    Submitted,
    Terminal,
)
from pyexec.domain.execution import end_status
from pyexec.domain.timeline import PhaseName
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
    """The trace of an execution after `seq` events: the span of the whole execution, and the phase in progress. After
    a kill request, that is the phase `completing`, whose span is exported at the end."""

    context: TraceContext
    parent: TraceContext | None
    tenant: str
    submitted_at: datetime
    seq: int
    phase: _OpenPhase | None
    owner: str | None = None
    kill_requested_at: datetime | None = None
    history: tuple[tuple[str, datetime], ...] = ()


def begin(submitted: Submitted, context: TraceContext, parent: TraceContext | None) -> Trace:
    """Return the trace of an execution after its first event."""
    return Trace(
        context=context,
        parent=parent,
        tenant=submitted.spec.tenant,
        submitted_at=submitted.at,
        seq=1,
        phase=_phase(PhaseName.QUEUED, submitted),
        history=((submitted.name, submitted.at),),
    )


def advance(trace: Trace, event: Event) -> tuple[Trace, Sequence[Span]]:
    """Return the trace after one more event, and the span of the phase that the event ends."""
    phase, owner, kill_requested_at = trace.phase, trace.owner, trace.kill_requested_at
    match event:
        case Claimed():
            owner = event.replica
            phase = _phase(PhaseName.CLAIMED, event, owner)
        case Preparing():
            phase = _phase(PhaseName.PREPARING, event, owner)
        case Released():
            owner = None
            phase = _phase(PhaseName.QUEUED, event)
        case Running():
            phase = _phase(PhaseName.RUNNING, event, owner)
        case Adopted():
            owner = event.replica
            phase = _phase(PhaseName.RUNNING, event, owner)
        case KillRequested():
            kill_requested_at = kill_requested_at or event.at
        case Finished() | Failed() | Killed():
            phase = None
    if kill_requested_at is not None:
        phase = None
    spans = [trace.phase.ended(event.at)] if trace.phase is not None and phase is not trace.phase else []
    after = evolve(
        trace,
        seq=trace.seq + 1,
        phase=phase,
        owner=owner,
        kill_requested_at=kill_requested_at,
        history=(*trace.history, (event.name, event.at)),
    )
    return after, spans


def accept_span(trace: Trace, committed_at: datetime) -> Span:
    """Return the span from the arrival of the request until its first events were durable."""
    end = max(trace.submitted_at, committed_at)
    return Span(name="accept", start=trace.submitted_at, end=end, span_id=_hash(trace.context.span_id))


def completing_span(
    trace: Trace, terminal: Terminal, program_ended: datetime | None, committed_at: datetime
) -> Span:
    """Return the span from the kill request, or the end of the program, until the terminal event was durable."""
    start = trace.kill_requested_at or program_ended or terminal.at
    return Span(
        name=PhaseName.COMPLETING.value,
        start=start,
        end=max(start, committed_at),
        span_id=_hash(terminal.nonce + " completing"),
    )


def execution_span(trace: Trace, execution_id: str, terminal: Terminal, committed_at: datetime) -> Span:
    """Return the span of the whole execution. Its attributes contain no text of the program."""
    attributes: dict[str, str | int] = {
        "pyexec.execution_id": execution_id,
        "pyexec.tenant": trace.tenant,
        "pyexec.status": end_status(terminal).value,
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


def _phase(name: PhaseName, event: Event, replica: str | None = None) -> _OpenPhase:
    return _OpenPhase(name=name.value, start=event.at, span_id=_hash(event.nonce), replica=replica)


def _hash(text: str) -> str:
    """Return a span id for `text`, so that a phase has the same id on every replica."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
