"""Export the spans of executions, from the events that this replica appends and from the steps that it measures."""

import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from attrs import define, field, frozen

from pyexec.correlation import current_correlation
from pyexec.domain.events import Event, Submitted, Terminal
from pyexec.domain.execution import Execution
from pyexec.domain.trace import Span, Trace, accept_span, advance, begin, completing_span, execution_span
from pyexec.domain.trace_context import TraceContext, execution_context, parse_trace_context
from pyexec.metric_types import Counter, Gauge, Histogram
from pyexec.metrics import STEP_SECONDS, Meter
from pyexec.ports import IdempotencyKey, Tracer
from pyexec.services.clock import now
from pyexec.services.event_log import MeteredLog

logger = logging.getLogger(__name__)

EXECUTIONS_MAX = 10_000
"""Maximum number of executions whose progress is in memory, about a kilobyte each. The oldest is forgotten first."""
STEPS_MAX = 100
_PROGRAM = "program"
STEP_NAMES = {
    "setup_place": "wait for setup",
    "slot": "wait for slot",
    "sandbox": "get sandbox",
    "upload": "unpack",
    _PROGRAM: _PROGRAM,
}
"""The names of the spans of steps. `program` is not exported; it gives the time at which the program ended."""


@frozen
class Step:
    """A measured step of a run."""

    name: str
    start: datetime
    end: datetime


@define
class ExecutionTraces:
    """The traces of the executions that this replica has read or appended to, and the steps since the last append."""

    tracer: Tracer
    _traces: OrderedDict[str, Trace] = field(factory=OrderedDict)
    _steps: OrderedDict[str, list[Step]] = field(factory=OrderedDict)

    def context(self, execution_id: str, traceparent: str | None, tracestate: str | None) -> TraceContext:
        """Return the context of the execution's span, for the caller's next spans."""
        parent = _parent(traceparent, tracestate)
        trace_id = execution_context(execution_id, parent, sampled=False).trace_id
        sampled = self.tracer.samples(trace_id, parent)
        return execution_context(execution_id, parent, sampled=sampled)

    def context_of(self, execution: Execution) -> TraceContext:
        """Return the context of the execution's span."""
        return self.context(execution.id, execution.traceparent, execution.tracestate)

    def known(self, execution_id: str) -> TraceContext | None:
        """Return the context of an execution that this replica has accepted or read; None if it is not in memory."""
        trace = self._traces.get(execution_id)
        return None if trace is None else trace.context

    def before(self, execution_id: str, after: int) -> Trace | None:
        """Return the trace after the first `after` events; None if it is not known here."""
        trace = self._traces.get(execution_id)
        return trace if trace is not None and trace.seq == after else None

    def observe(self, execution_id: str, events: Sequence[Event]) -> None:
        """Follow an execution by all of its events, which another replica may have appended."""
        if not events or isinstance(events[-1], Terminal):
            return
        known = self._traces.get(execution_id)
        if known is None or known.seq < len(events):
            trace, _ = self._follow(execution_id, None, events)
            self._remember(execution_id, trace)

    def appended(self, execution_id: str, before: Trace | None, after: int, events: Sequence[Event]) -> None:
        """Export the spans of the phases that end with these events, and of the steps before them."""
        steps = self._steps.pop(execution_id, [])
        if before is None and after > 0:
            return
        trace, spans = self._follow(execution_id, before, events)
        if trace is None:
            return
        committed_at, last = now(), events[-1]
        program_ended = next((step.end for step in steps if step.name == _PROGRAM), None)
        if before is None:
            spans.append(accept_span(trace, committed_at))
        if isinstance(last, Terminal):
            spans.append(completing_span(trace, last, program_ended, committed_at))
        self._remember(execution_id, trace)
        spans += [_step_span(step) for step in steps if step.name != _PROGRAM]
        if trace.context.sampled:
            for span in spans:
                self.tracer.export(span, trace.context.trace_id, trace.context)
            if isinstance(last, Terminal):
                whole = execution_span(trace, execution_id, last, committed_at)
                self.tracer.export(whole, trace.context.trace_id, trace.parent)

    def add_step(self, step: str, seconds: float) -> None:
        """Record a step that the current execution has just ended. It is exported with its next append."""
        execution_id, name = current_correlation().execution_id, STEP_NAMES.get(step)
        if not execution_id or name is None:
            return
        end = now()
        steps = self._steps.setdefault(execution_id, [])
        if len(steps) < STEPS_MAX:
            steps.append(Step(name, end - timedelta(seconds=seconds), end))
        _limit(self._steps)

    def _follow(
        self, execution_id: str, trace: Trace | None, events: Sequence[Event]
    ) -> tuple[Trace | None, list[Span]]:
        ended: list[Span] = []
        for event in events:
            if isinstance(event, Submitted):
                context = self.context(execution_id, event.traceparent, event.tracestate)
                trace = begin(event, context, _parent(event.traceparent, event.tracestate))
            elif trace is not None:
                trace, spans = advance(trace, event)
                ended += spans
        return trace, ended

    def _remember(self, execution_id: str, trace: Trace | None) -> None:
        known = self._traces.get(execution_id)
        if trace is not None and (known is None or known.seq < trace.seq):
            self._traces[execution_id] = trace
            self._traces.move_to_end(execution_id)
            _limit(self._traces)


@frozen
class TracedLog(MeteredLog):
    """A `MeteredLog` that also exports the spans of the phases that its appends end. A failure is only logged."""

    traces: ExecutionTraces = field(kw_only=True)

    async def append(
        self,
        execution_id: str,
        after: int,
        events: Sequence[Event],
        *,
        key: IdempotencyKey | None = None,
        notify: str | None = None,
        fence: str | None = None,
    ) -> None:
        # Taken before the append: as soon as it is durable, a reader may record a later state.
        before = self.traces.before(execution_id, after)
        await MeteredLog.append(self, execution_id, after, events, key=key, notify=notify, fence=fence)
        _guarded(lambda: self.traces.appended(execution_id, before, after, events))

    async def read(self, execution_id: str, after: int = 0) -> Sequence[Event]:
        events = await MeteredLog.read(self, execution_id, after)
        if after == 0:
            _guarded(lambda: self.traces.observe(execution_id, events))
        return events


@frozen
class StepMeter:
    """Passes metrics on to another meter, and records the steps of runs as spans."""

    meter: Meter
    traces: ExecutionTraces

    def count(self, metric: Counter, *labels: str, by: float = 1) -> None:
        self.meter.count(metric, *labels, by=by)

    def observe(self, metric: Histogram, value: float, *labels: str) -> None:
        self.meter.observe(metric, value, *labels)
        if metric is STEP_SECONDS:
            self.traces.add_step(labels[0], value)

    def watch(self, metric: Gauge, read: Callable[[], float], *labels: str) -> None:
        self.meter.watch(metric, read, *labels)


def _parent(traceparent: str | None, tracestate: str | None) -> TraceContext | None:
    if traceparent is None:
        return None
    return parse_trace_context([traceparent], [] if tracestate is None else [tracestate])


def _step_span(step: Step) -> Span:
    return Span(name=step.name, start=step.start, end=step.end, span_id=os.urandom(8).hex())


def _limit(entries: OrderedDict[str, Trace] | OrderedDict[str, list[Step]]) -> None:
    while len(entries) > EXECUTIONS_MAX:
        entries.popitem(last=False)


def _guarded(report: Callable[[], None]) -> None:
    try:
        report()
    except Exception:  # a mistake in a trace must not fail a run
        logger.exception("the spans of an execution could not be exported")
