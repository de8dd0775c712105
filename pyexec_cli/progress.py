"""How far a large upload is, on a terminal."""

from __future__ import annotations

import time

from anyio import to_thread
from attrs import define

from pyexec_client.source import Source, archive

from .console import StatusLine

_SHOWN_FROM = 8_000_000
_WIDTH = 30
_REDRAW_SECONDS = 0.1


@define
class _Bar:
    line: StatusLine
    total: int
    _last: float = 0.0

    def show(self, sent: int) -> None:
        now = time.monotonic()
        if now - self._last >= _REDRAW_SECONDS or sent >= self.total:
            self._last = now
            self.line.show(_text(min(sent, self.total), self.total))


async def with_progress(source: Source, line: StatusLine) -> Source:
    """The source, shown as it is sent if it is a large one and somebody looks."""
    if not line.shown:
        return source
    whole = archive(source)
    try:
        total = await to_thread.run_sync(whole.size, abandon_on_cancel=True)
    except (OSError, ValueError):
        return source  # what cannot be read is told when it is to be sent
    if total is None or total <= _SHOWN_FROM:
        return source
    return whole.observed(_Bar(line, total).show)


def _text(sent: int, total: int) -> str:
    full = "#" * (_WIDTH * sent // total)
    return f"sending {100 * sent // total:3d}% [{full:<{_WIDTH}}] {sent / 1e6:.1f}/{total / 1e6:.1f} MB"
