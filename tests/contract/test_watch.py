"""Waiting: a waiter returns as soon as another task has appended."""

from collections.abc import Awaitable, Callable, Mapping

import anyio
import pytest
from anyio import fail_after, move_on_after, wait_all_tasks_blocked

from pyexec.ports import EventLog
from tests.events import claimed, finished, killed, new_id, released, running, submitted

PATIENCE = 20
"""Timeout in seconds of a test that waits."""


async def wakes(waiting: Callable[[], Awaitable[object]], news: Callable[[], Awaitable[object]]) -> None:
    """Check that `waiting` returns after `news`, and not earlier."""
    returned = anyio.Event()

    async def wait() -> None:
        await waiting()
        returned.set()

    with fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait, name="waiter")
            await wait_all_tasks_blocked()
            with move_on_after(0.05):
                await returned.wait()
            assert not returned.is_set()
            await news()
            await returned.wait()


async def test_a_waiter_wakes_at_an_append(log: EventLog) -> None:
    execution = new_id()
    await log.append(execution, 0, [submitted(), claimed()])
    await wakes(lambda: log.wait(execution, 2), lambda: log.append(execution, 2, [running()]))


async def test_a_waiter_may_start_before_the_execution(log: EventLog) -> None:
    execution = new_id()
    await wakes(lambda: log.wait(execution, 0), lambda: log.append(execution, 0, [submitted()]))


async def test_a_waiter_wakes_when_the_log_is_retired(log: EventLog) -> None:
    execution = new_id()
    await log.append(execution, 0, [submitted(), killed()])
    await wakes(lambda: log.wait(execution, 2), lambda: log.retire(execution))


@pytest.mark.parametrize("after", [0, 1])
async def test_a_wait_for_existing_events_returns_at_once(log: EventLog, after: int) -> None:
    execution = new_id()
    await log.append(execution, 0, [submitted(), killed()])
    with fail_after(PATIENCE):
        await log.wait(execution, after)
        await log.retire(execution)
        for number in range(4):
            await log.wait(execution, number)


async def test_a_waiter_sleeps_until_the_event_it_waits_for(log: EventLog) -> None:
    execution = new_id()
    await log.append(execution, 0, [submitted()])

    async def news() -> None:
        await log.append(execution, 1, [claimed()])
        await log.append(new_id(), 0, [submitted(), claimed(), running()])
        await log.append(execution, 2, [running()])

    await wakes(lambda: log.wait(execution, 2), news)
    assert len(await log.read(execution)) == 3


async def test_many_waiters_wake_at_one_append(log: EventLog) -> None:
    execution = new_id()
    await log.append(execution, 0, [submitted()])
    with fail_after(PATIENCE):
        async with anyio.create_task_group() as waiters:
            for number in range(100):
                waiters.start_soon(log.wait, execution, 1, name=f"waiter {number}")
            await wait_all_tasks_blocked()
            await log.append(execution, 1, [claimed()])


async def test_no_event_between_a_read_and_a_wait_is_missed(log: EventLog) -> None:
    """A reader that loops over read and wait gets every event, whatever the timing of the writer."""
    execution, seen = new_id(), 0

    async def write() -> None:
        await log.append(execution, 0, [submitted()])
        for number in range(1, 60, 2):
            await log.append(execution, number, [claimed(), released()])
        await log.append(execution, 61, [killed()])

    with fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write, name="writer")
            while seen < 62:
                await log.wait(execution, seen)
                seen += len(await log.read(execution, seen))


async def test_a_cancelled_waiter_leaves_the_others_waiting(log: EventLog) -> None:
    execution = new_id()
    with move_on_after(0.05) as scope:
        await log.wait(execution, 0)
    assert scope.cancelled_caught
    await wakes(lambda: log.wait(execution, 0), lambda: log.append(execution, 0, [submitted()]))


async def test_open_executions_come_with_a_version(log: EventLog) -> None:
    assert (await log.open_executions()).lengths == {}
    first, second = new_id(), new_id()
    await log.append(first, 0, [submitted()])
    await log.append(second, 0, [submitted(), claimed(), running()])
    shown = await log.open_executions()
    assert shown.lengths == {first: 1, second: 3}
    await log.append(second, 3, [finished()])
    with fail_after(PATIENCE):
        later = await log.open_executions(since=shown.version)
    assert later.lengths == {first: 1}
    assert later.version != shown.version


async def test_a_watcher_of_open_executions_wakes_at_changes(log: EventLog) -> None:
    execution = new_id()

    async def wakes_at(news: Callable[[], Awaitable[object]], *, open_after: dict[str, int]) -> None:
        version = (await log.open_executions()).version
        seen: list[Mapping[str, int]] = []

        async def watch() -> None:
            seen.append((await log.open_executions(since=version)).lengths)

        await wakes(watch, news)
        assert seen == [open_after]

    await wakes_at(lambda: log.append(execution, 0, [submitted()]), open_after={execution: 1})
    await log.append(execution, 1, [claimed()])
    await wakes_at(lambda: log.append(execution, 2, [released()]), open_after={execution: 3})
    await wakes_at(lambda: log.append(execution, 3, [killed()]), open_after={})
