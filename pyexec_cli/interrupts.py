"""Ctrl-C and other signals: the first one ends the work of a command, the second one exits at once."""

from __future__ import annotations

import asyncio
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
    handles: Callable[[int], bool]
    group: anyio.abc.TaskGroup
    work: anyio.CancelScope = field(factory=anyio.CancelScope)
    work_done: anyio.Event = field(factory=anyio.Event)
    first: int | None = None

    async def watch(self) -> None:
        with anyio.open_signal_receiver(*not_ignored((signal.SIGINT, *END_SIGNALS))) as signals:
            async for number in signals:
                if self.handles(number):
                    continue
                if self.first is None:
                    self.first = number
                    self.group.start_soon(self._interrupt, name="interrupt")
                # A closed terminal sends SIGHUP twice: from the kernel and from the shell.
                elif number != signal.SIGHUP:
                    _exit_at_once(number)

    async def _interrupt(self) -> None:
        if await self.on_interrupt():
            with anyio.move_on_after(_GRACE_SECONDS):
                await self.work_done.wait()
        self.work.cancel()


def wake_on_signals() -> None:
    """Let every signal end a wait of the running event loop, so that its handler runs at once.

    A signal that arrives just before the wait begins, or in another thread, would not end it: Python runs
    handlers only between two instructions of the main thread. While asyncio has a handler of its own, it also
    wakes its loop for those of `signal.signal`. SIGURG does nothing in a process that does not ask for it.
    """
    asyncio.get_running_loop().add_signal_handler(signal.SIGURG, lambda: None)


def not_ignored(signals: tuple[signal.Signals, ...]) -> list[signal.Signals]:
    """Return the signals to handle: one that the parent process ignores (nohup, a background job) stays ignored."""
    return [number for number in signals if signal.getsignal(number) is not signal.SIG_IGN]


def _handles_none(_number: int) -> bool:
    return False


async def interruptible(
    work: Callable[[], Awaitable[int]],
    on_interrupt: Callable[[], Awaitable[bool]],
    handles: Callable[[int], bool] = _handles_none,
) -> int:
    """Return the exit code of `work`, or 128 plus the number of the first signal.

    The first signal calls `on_interrupt`. If that returns True, `work` gets a few seconds to end by itself;
    otherwise it is cancelled at once. A signal for which `handles` returns True does not count.
    """
    code = None
    try:
        async with anyio.create_task_group() as group:
            handler = _SignalHandler(on_interrupt, handles, group)
            group.start_soon(handler.watch, name="signals")
            with handler.work:
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
