"""Report the phases and the output of a run as progress notifications."""

from __future__ import annotations

import anyio
from attrs import define, field
from mcp.server.context import ServerRequestContext

from pyexec.mcp.executor import Report

INTERVAL_SECONDS = 0.1
"""Pieces of output that follow each other faster are joined."""
MESSAGE_CHARACTERS_MAX = 2000


@define
class Progress:
    """Sends what is reported as notifications, at most one each `INTERVAL_SECONDS`."""

    _context: ServerRequestContext
    _count: int = 0
    _held: str = ""
    _next_at: float = field(factory=anyio.current_time)

    @property
    def report(self) -> Report | None:
        """The function that reports; None if the client did not ask for progress."""
        wants_progress = self._context.meta is not None and "progress_token" in self._context.meta
        return self._report if wants_progress else None

    async def send_held(self) -> None:
        """Send what is held. Call it before the result of the call is sent."""
        if self._held:
            self._count += 1
            message, self._held = self._held, ""
            await self._context.session.report_progress(self._count, message=message)
            self._next_at = anyio.current_time() + INTERVAL_SECONDS

    async def _report(self, text: str) -> None:
        self._held = (self._held + text)[-MESSAGE_CHARACTERS_MAX:]
        if anyio.current_time() >= self._next_at:
            await self.send_held()
