"""The interface to a collector of traces."""

from typing import Protocol

from pyexec.domain.trace import Span
from pyexec.domain.trace_context import TraceContext


class Tracer(Protocol):
    """Exports spans in the background. No method blocks or raises if the collector fails."""

    def samples(self, trace_id: str, parent: TraceContext | None) -> bool:
        """Return True if the spans of this trace are exported.

        Replicas with the same settings return the same."""

    def export(self, span: Span, trace_id: str, parent: TraceContext | None) -> None:
        """Export a span of this trace. If it has no parent, it is the first span of the trace."""
