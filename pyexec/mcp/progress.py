"""Send the phases and the output of a run as progress notifications."""

from __future__ import annotations

import codecs
from collections import defaultdict
from typing import TYPE_CHECKING

import anyio
from attrs import define, field

from pyexec.mcp.executor import OnProgress

if TYPE_CHECKING:  # executors use `ProgressText` in processes that do not load the SDK
    from mcp.server.context import ServerRequestContext

INTERVAL_SECONDS = 0.1
"""Pieces of output that follow each other faster are joined."""
MESSAGE_CHARACTERS_MAX = 2000
_PHASES = {"submitted": "queued", "preparing": "installing", "running": "running", "adopted": "running"}
_TEXT_STREAMS = ("stdout", "stderr", "setup")


class ProgressText:
    """Turns the events of a run into text for a person.

    Each stream has its own decoder, because a chunk may end in the middle of a character."""

    def __init__(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")
        self._decoders: defaultdict[str, codecs.IncrementalDecoder] = defaultdict(lambda: decoder("replace"))

    def phase(self, event: str) -> str:
        """Return the phase that an event begins, as a line; an empty string if it begins none."""
        return f"{_PHASES[event]}\n" if event in _PHASES else ""

    def output(self, stream: str, data: bytes) -> str:
        """Return the characters that this chunk completes; an empty string for a display, which is not text."""
        return self._decoders[stream].decode(data) if stream in _TEXT_STREAMS else ""


@define
class Progress:
    """Sends text as notifications, at most one each `INTERVAL_SECONDS`."""

    _context: ServerRequestContext
    _count: int = 0
    _held: str = ""
    _next_at: float = field(factory=anyio.current_time)

    @property
    def on_progress(self) -> OnProgress | None:
        """The function to call with text; None if the client did not ask for progress."""
        wants_progress = self._context.meta is not None and "progress_token" in self._context.meta
        return self._send if wants_progress else None

    async def send_held(self) -> None:
        """Send what is held. Call it before the result of the call is sent."""
        if self._held:
            self._count += 1
            message, self._held = self._held, ""
            await self._context.session.report_progress(self._count, message=message)
            self._next_at = anyio.current_time() + INTERVAL_SECONDS

    async def _send(self, text: str) -> None:
        self._held = (self._held + text)[-MESSAGE_CHARACTERS_MAX:]
        if anyio.current_time() >= self._next_at:
            await self.send_held()
