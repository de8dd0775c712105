"""The bound on cancellations that wait. No server is needed."""

import anyio
import anyio.lowlevel

from pyexec.web.mcp.executor import CANCELLATIONS_MAX, WaitingCancellations


async def test_the_oldest_waiting_cancellations_are_dropped() -> None:
    waiting = WaitingCancellations()
    dropped: list[int] = []
    two_are_dropped = anyio.Event()

    async def wait(number: int) -> None:
        with waiting.wait():
            await anyio.sleep_forever()
        dropped.append(number)
        if len(dropped) == 2:
            two_are_dropped.set()

    async with anyio.create_task_group() as tasks:
        for number in range(CANCELLATIONS_MAX + 2):
            tasks.start_soon(wait, number)
            await anyio.lowlevel.checkpoint()
        with anyio.fail_after(1):
            await two_are_dropped.wait()
        tasks.cancel_scope.cancel()
    assert sorted(dropped) == [0, 1]
