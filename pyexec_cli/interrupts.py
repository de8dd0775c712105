"""Ctrl-C: the first ends the execution, the second leaves at once."""

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
class _Interruption:
    stop: Callable[[], Awaitable[bool]]
    group: anyio.abc.TaskGroup
    story_over: anyio.Event = field(factory=anyio.Event)
    first: int | None = None

    async def watch(self) -> None:
        # What our parent had us ignore (nohup, a background job) stays ignored.
        heeded = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        with anyio.open_signal_receiver(*heeded) as signals:
            async for number in signals:
                if self.first is not None:
                    _leave_at_once(number)
                self.first = number
                self.group.start_soon(self._end, name="end the execution")

    async def _end(self) -> None:
        if await self.stop():
            with anyio.move_on_after(_GRACE_SECONDS):
                await self.story_over.wait()
        self.group.cancel_scope.cancel()


async def interruptible(story: Callable[[], Awaitable[int]], stop: Callable[[], Awaitable[bool]]) -> int:
    """The story's exit code, or 128 and the signal's number if one came meanwhile.

    At the first signal `stop` is called. If it returns true the story has some seconds to come to its end,
    else it is cancelled.
    """
    code = None
    try:
        async with anyio.create_task_group() as group:
            interruption = _Interruption(stop, group)
            group.start_soon(interruption.watch, name="signals")
            code = await story()
            interruption.story_over.set()
            group.cancel_scope.cancel()
    except BaseExceptionGroup as problems:
        # One of the two failed; the group around it means nothing to those who handle it.
        if len(problems.exceptions) == 1:
            raise problems.exceptions[0] from None
        raise
    if interruption.first is not None:
        return 128 + interruption.first
    if code is None:
        raise AssertionError("only a signal cancels the story")
    return code


def _leave_at_once(number: int) -> NoReturn:
    os._exit(128 + number)
