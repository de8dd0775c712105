"""Export spans with the OpenTelemetry SDK over OTLP/HTTP. Only an import of this module loads the SDK."""

import logging
import threading
import time
from datetime import UTC, datetime
from importlib.metadata import version

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from pyexec.domain.trace import Span
from pyexec.domain.trace_context import TraceContext

logger = logging.getLogger(__name__)

LOG_INTERVAL_SECONDS = 60.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _GivenIds(IdGenerator):
    """Returns the ids of the next span: the domain has chosen them, so that all replicas use the same."""

    def __init__(self) -> None:
        self.trace_id = self.span_id = 0

    def generate_trace_id(self) -> int:
        return self.trace_id

    def generate_span_id(self) -> int:
        return self.span_id


class _RateLimitedHandler(logging.Handler):
    """Passes the SDK's warnings and errors to the log of the server, at most one in `LOG_INTERVAL_SECONDS`."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._next = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + LOG_INTERVAL_SECONDS
            # Without the traceback: the usual cause is a collector that does not answer.
            logger.warning("exporting traces failed: %s", record.getMessage())


class OtlpTracer:
    """A `ports.Tracer` with a queue of limited length, which a thread of its own exports in batches.

    The SDK reads the variables OTEL_… itself."""

    def __init__(self, replica_id: str) -> None:
        sdk_logger = logging.getLogger("opentelemetry")
        if sdk_logger.propagate:
            sdk_logger.propagate = False
            sdk_logger.addHandler(_RateLimitedHandler())
        resource = Resource.create(
            {
                "service.name": "python-executor",
                "service.version": version("python-executor"),
                "service.instance.id": replica_id,
            }
        ).merge(Resource.create())  # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES
        self._ids = _GivenIds()
        self._provider = TracerProvider(resource=resource, id_generator=self._ids, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("pyexec")

    def samples(self, trace_id: str, parent: TraceContext | None) -> bool:
        context = None if parent is None else set_span_in_context(NonRecordingSpan(_span_context(parent)))
        result = self._provider.sampler.should_sample(context, int(trace_id, 16), "execution")
        return result.decision is Decision.RECORD_AND_SAMPLE

    def export(self, span: Span, trace_id: str, parent: TraceContext | None) -> None:
        self._ids.trace_id, self._ids.span_id = int(trace_id, 16), int(span.span_id, 16)
        context = None if parent is None else set_span_in_context(NonRecordingSpan(_span_context(parent)))
        kind = SpanKind.SERVER if span.name == "execution" else SpanKind.INTERNAL
        recorded = self._tracer.start_span(
            span.name, context, kind=kind, attributes=span.attributes, start_time=_nanoseconds(span.start)
        )
        for name, at in span.events:
            recorded.add_event(name, timestamp=_nanoseconds(at))
        if span.error is not None:
            recorded.set_attribute("error.type", span.error)
            recorded.set_status(Status(StatusCode.ERROR))
        recorded.end(_nanoseconds(span.end))

    def close(self, seconds: float) -> bool:
        """Export what is in the queue, and block until that is done, at most `seconds`. Return True if it is done."""
        # A daemon thread: a collector that does not answer must not delay the end of the process.
        flushing = threading.Thread(target=self._provider.shutdown, name="flush traces", daemon=True)
        flushing.start()
        flushing.join(seconds)
        return not flushing.is_alive()


def _span_context(context: TraceContext) -> SpanContext:
    return SpanContext(
        int(context.trace_id, 16),
        int(context.span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED if context.sampled else TraceFlags.DEFAULT),
        trace_state=TraceState.from_header([context.tracestate or ""]),
    )


def _nanoseconds(moment: datetime) -> int:
    since = moment - _EPOCH
    return ((since.days * 86400 + since.seconds) * 1_000_000 + since.microseconds) * 1000
