"""Send the phases and the output of a run as progress notifications."""

from __future__ import annotations

import codecs
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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
    _has_text: anyio.Event = field(factory=anyio.Event)
    _has_ended: anyio.Event = field(factory=anyio.Event)

    @asynccontextmanager
    async def sending(self) -> AsyncIterator[OnProgress | None]:
        """Send the text that the body passes to the yielded function, until the body ends.

        Yield None if the client did not ask for progress."""
        if self._context.meta is None or "progress_token" not in self._context.meta:
            yield None
            return
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._send_texts, name="progress of a call")
                yield self._hold
                self._has_ended.set()
                self._has_text.set()
        except ExceptionGroup as group:  # callers expect the exception of the body itself
            raise group.exceptions[0] from group.exceptions[0].__cause__

    async def _hold(self, text: str) -> None:
        self._held = (self._held + text)[-MESSAGE_CHARACTERS_MAX:]
        self._has_text.set()

    async def _send_texts(self) -> None:
        """Send the buffered text as soon as the interval allows it, and at the end at once."""
        while not self._has_ended.is_set():
            await self._has_text.wait()
            self._has_text = anyio.Event()
            await self._send_held()
            with anyio.move_on_after(INTERVAL_SECONDS):
                await self._has_ended.wait()
        await self._send_held()

    async def _send_held(self) -> None:
        if self._held:
            self._count += 1
            message, self._held = self._held, ""
            await self._context.session.report_progress(self._count, message=message)
