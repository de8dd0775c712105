"""A progress bar for large uploads, on a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable

from anyio import to_thread
from attrs import define

from pyexec_client.source import Source, archive

from .console import StatusLine

_MIN_BYTES = 8_000_000
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
    """Add a progress bar to the source if it is large and the status line is enabled."""
    if not line.enabled:
        return source
    whole = archive(source)
    try:
        total = await to_thread.run_sync(whole.size, abandon_on_cancel=True)
    except (OSError, ValueError):
        return source  # sending it raises the same error
    if total is None or total <= _MIN_BYTES:
        return source
    return whole.with_progress(progress_bar(total, line))


def progress_bar(total: int, line: StatusLine) -> Callable[[int], None]:
    """Return a function that shows how many bytes of the total have been sent. It shows nothing for a small total."""
    return _Bar(line, total).show if total > _MIN_BYTES else lambda _: None


def _text(sent: int, total: int) -> str:
    filled = "#" * (_WIDTH * sent // total)
    return f"sending {100 * sent // total:3d}% [{filled:<{_WIDTH}}] {sent / 1e6:.1f}/{total / 1e6:.1f} MB"
