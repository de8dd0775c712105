"""Interfaces for what the server sends: traces to a collector, and webhooks to their receivers."""

from collections.abc import Mapping
from typing import Protocol

from pyexec.domain.trace import Span
from pyexec.domain.trace_context import TraceContext
from pyexec.domain.webhook_schedule import Attempt


class Tracer(Protocol):
    """Exports spans in the background. No method blocks or raises if the collector fails."""

    def samples(self, trace_id: str, parent: TraceContext | None) -> bool:
        """Return True if the spans of this trace are exported.

        Replicas with the same settings return the same."""

    def export(self, span: Span, trace_id: str, parent: TraceContext | None) -> None:
        """Export a span of this trace. If it has no parent, it is the first span of the trace."""


class WebhookSender(Protocol):
    """Sends webhooks. It connects only to addresses that the operator allows, and follows no redirect."""

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Attempt:
        """Send one request, and return its outcome within a bounded time, whatever the receiver does."""
