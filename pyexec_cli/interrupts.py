"""Ctrl-C and other signals: the first one kills the execution, the second one exits at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable
from typing import NoReturn

import anyio
from attrs import define, field

_GRACE_SECONDS = 5.0
END_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


@define
class _SignalHandler:
    on_interrupt: Callable[[], Awaitable[bool]]
    group: anyio.abc.TaskGroup
    signals: tuple[signal.Signals, ...]
    work_done: anyio.Event = field(factory=anyio.Event)
    first: int | None = None

    async def watch(self) -> None:
        with anyio.open_signal_receiver(*not_ignored(self.signals)) as signals:
            async for number in signals:
                if self.first is not None:
                    _exit_at_once(number)
                self.first = number
                self.group.start_soon(self._interrupt, name="interrupt")

    async def _interrupt(self) -> None:
        if await self.on_interrupt():
            with anyio.move_on_after(_GRACE_SECONDS):
                await self.work_done.wait()
        self.group.cancel_scope.cancel()


def not_ignored(signals: tuple[signal.Signals, ...]) -> list[signal.Signals]:
    """Return the signals to handle: one that the parent process ignores (nohup, a background job) stays ignored."""
    return [number for number in signals if signal.getsignal(number) is not signal.SIG_IGN]


async def interruptible(
    work: Callable[[], Awaitable[int]],
    on_interrupt: Callable[[], Awaitable[bool]],
    signals: tuple[signal.Signals, ...] = (signal.SIGINT, *END_SIGNALS),
) -> int:
    """Return the exit code of `work`, or 128 plus the number of the first of these signals.

    The first signal calls `on_interrupt`. If that returns True, `work` gets a few seconds to end by itself;
    otherwise it is cancelled at once.
    """
    code = None
    try:
        async with anyio.create_task_group() as group:
            handler = _SignalHandler(on_interrupt, group, signals)
            group.start_soon(handler.watch, name="signals")
            code = await work()
            handler.work_done.set()
            group.cancel_scope.cancel()
    except BaseExceptionGroup as errors:
        # Callers expect the error itself, not a group around it.
        if len(errors.exceptions) == 1:
            raise errors.exceptions[0] from None
        raise
    if handler.first is not None:
        return 128 + handler.first
    if code is None:
        raise AssertionError("only a signal cancels the work")
    return code


def _exit_at_once(number: int) -> NoReturn:
    os._exit(128 + number)
