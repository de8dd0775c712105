"""Report the phases and the output of a run as progress notifications."""

from __future__ import annotations

import anyio
from attrs import define, field
from mcp.server.context import ServerRequestContext

from pyexec_mcp.executor import Report

INTERVAL_SECONDS = 0.1
"""Pieces of output that follow each other faster are joined."""
MESSAGE_CHARACTERS_MAX = 2000


def reporter(context: ServerRequestContext) -> Report | None:
    """Return a function that reports progress; None if the client did not ask for it."""
    wants_progress = context.meta is not None and "progress_token" in context.meta
    return _Reporter(context).report if wants_progress else None


@define
class _Reporter:
    """Sends notifications, at most one each `INTERVAL_SECONDS`."""

    context: ServerRequestContext
    _count: int = 0
    _held: str = ""
    _next_at: float = field(factory=anyio.current_time)

    async def report(self, text: str) -> None:
        """Send the text, or keep it for the next call if the last notification was just sent."""
        self._held = (self._held + text)[-MESSAGE_CHARACTERS_MAX:]
        if anyio.current_time() < self._next_at:
            return
        self._count += 1
        message, self._held = self._held, ""
        await self.context.session.report_progress(self._count, message=message)
        self._next_at = anyio.current_time() + INTERVAL_SECONDS
