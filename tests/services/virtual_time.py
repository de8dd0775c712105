"""An event loop with virtual time: the clock stands while tasks are ready, then jumps to the next timer."""

import asyncio
import selectors
from collections.abc import Sequence
from selectors import SelectorKey
from typing import Any

BUSY_ROUNDS = 5_000
"""More than any number of steps that a test takes at one moment."""


class _Selector(selectors.DefaultSelector):
    """Advances the virtual time instead of sleeping."""

    now = 0.0
    rounds = 0

    def select(self, timeout: float | None = None) -> Sequence[tuple[SelectorKey, int]]:
        ready = super().select(0)
        self.rounds += 1
        if not ready and timeout != 0:
            if timeout is None:
                raise RuntimeError("deadlock: all tasks wait, and no timer is set")
            self.rounds = 0
            self.now += timeout
        if self.rounds > BUSY_ROUNDS:
            raise RuntimeError("busy loop: tasks are always ready, so the virtual time does not advance")
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop for code that waits for no threads or sockets."""

    def __init__(self) -> None:
        self._virtual: Any = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return float(self._virtual.now)
