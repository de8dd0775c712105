"""Ctrl-C and other signals: the first one kills the execution, the second one exits at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable
from typing import NoReturn

import anyio
from attrs import define, field

_GRACE_SECONDS = 5.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@define
class _SignalHandler:
    on_interrupt: Callable[[], Awaitable[bool]]
    group: anyio.abc.TaskGroup
    work_done: anyio.Event = field(factory=anyio.Event)
    first: int | None = None

    async def watch(self) -> None:
        # A signal that the parent process ignores (nohup, a background job) stays ignored.
        handled = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        with anyio.open_signal_receiver(*handled) as signals:
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


async def interruptible(
    work: Callable[[], Awaitable[int]], on_interrupt: Callable[[], Awaitable[bool]]
) -> int:
    """Return the exit code of `work`, or 128 plus the number of the first signal.

    The first signal calls `on_interrupt`. If that returns True, `work` gets a few seconds to end by itself;
    otherwise it is cancelled at once.
    """
    code = None
    try:
        async with anyio.create_task_group() as group:
            handler = _SignalHandler(on_interrupt, group)
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
