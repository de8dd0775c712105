"""Lists: open executions, pages by status, and executions by the time of their end."""

from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyexec.domain.events import Event
from pyexec.domain.execution import Phase, Status, fold
from pyexec.errors import InvalidRequest
from pyexec.ports import EventLog
from tests.contract.conftest import NewLog
from tests.events import (
    START,
    claimed,
    failed,
    finished,
    kill_requested,
    killed,
    new_id,
    preparing,
    released,
    running,
    submitted,
)
from tests.support.cases import examples

WORDS: list[list[Event]] = [
    [submitted()],
    [submitted(), claimed()],
    [submitted(), claimed(), released()],
    [submitted(), claimed(), preparing()],
    [submitted(), claimed(), preparing(), kill_requested()],
    [submitted(), claimed(), running()],
    [submitted(), claimed(), running(), kill_requested()],
    [submitted(), claimed(), running(), finished()],
    [submitted(), failed()],
    [submitted(), killed()],
]


async def all_pages(log: EventLog, status: Status | None, limit: int) -> list[str]:
    found: list[str] = []
    cursor = None
    while True:
        page = await log.list_executions(status=status, limit=limit, cursor=cursor)
        assert len(page.ids) <= limit
        found += page.ids
        cursor = page.next_cursor
        if cursor is None:
            return found


@settings(
    max_examples=examples(25), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    words=st.lists(st.sampled_from(WORDS), max_size=12),
    limit=st.integers(1, 13),
    retired=st.sets(st.integers(0, 11)),
)
async def test_pages_list_each_execution_once_newest_first(
    new_log: NewLog, words: list[list[Event]], limit: int, retired: set[int]
) -> None:
    async with new_log() as log:
        statuses: dict[str, Status] = {}
        queued: set[str] = set()
        for number, word in enumerate(words):
            execution = new_id()
            await log.append(execution, 0, word)
            state = fold(execution, word)
            if state.terminal is not None and number in retired:
                await log.retire(execution)
            else:
                statuses[execution] = state.status
                queued |= {execution} if state.phase is Phase.QUEUED else set()
        newest_first = sorted(statuses, reverse=True)
        assert await all_pages(log, None, limit) == newest_first
        for status in Status:
            of_status = [execution for execution in newest_first if statuses[execution] is status]
            assert await all_pages(log, status, limit) == of_status
        still_open = {e for e, s in statuses.items() if s in (Status.PENDING, Status.RUNNING)}
        opened = await log.open_executions()
        assert (opened.lengths.keys(), opened.queued) == (still_open, queued)


async def test_a_cursor_stays_valid_when_its_execution_is_retired(log: EventLog) -> None:
    executions = [new_id() for _ in range(4)]
    for execution in executions:
        await log.append(execution, 0, [submitted(), killed()])
    first = await log.list_executions(status=None, limit=2, cursor=None)
    for execution in first.ids:
        await log.retire(execution)
    rest = await log.list_executions(status=None, limit=2, cursor=first.next_cursor)
    assert [*first.ids, *rest.ids] == executions[::-1]
    assert rest.next_cursor is None


@pytest.mark.parametrize("cursor", ["", "nonsense", "exe_", "exe_" + "g" * 32, "\0", "💥", "1 OR 1=1"])
async def test_an_invalid_cursor_is_an_invalid_request(log: EventLog, cursor: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await log.list_executions(status=None, limit=1, cursor=cursor)
    assert refused.value.field == "cursor"


async def test_ended_executions_are_listed_earliest_end_first(log: EventLog) -> None:
    minute = timedelta(minutes=1)
    ends = [3, 1, 4, 0, 2]
    executions = {end: new_id(START) for end in ends}
    for end, execution in executions.items():
        await log.append(execution, 0, [submitted(), killed(START + end * minute)])
    await log.append(new_id(START), 0, [submitted(), claimed(), running()])
    in_order = [executions[end] for end in sorted(ends)]
    assert list(await log.list_ended(START + 10 * minute, 100)) == in_order
    assert list(await log.list_ended(START + 10 * minute, 2)) == in_order[:2]
    assert list(await log.list_ended(START + 3 * minute, 100)) == in_order[:3]
    assert list(await log.list_ended(START, 100)) == []
    await log.retire(in_order[0])
    assert list(await log.list_ended(START + 10 * minute, 1)) == [in_order[1]]


async def test_the_next_scan_finds_new_and_newly_ended_executions(log: EventLog) -> None:
    minute = timedelta(minutes=1)
    first = new_id(START)
    await log.append(first, 0, [submitted()])
    assert list(await log.list_ended(START + minute, 10)) == []
    second, later = new_id(START + minute), new_id(START + 3 * minute)
    await log.append(first, 1, [killed(START + minute)])
    await log.append(second, 0, [submitted(), killed(START + 2 * minute)])
    await log.append(later, 0, [submitted(), killed(START + 4 * minute)])
    assert list(await log.list_ended(START + 2.5 * minute, 10)) == [first, second]
    await log.retire(first)
    assert list(await log.list_ended(START + 200 * minute, 10)) == [second, later]


async def test_ends_are_compared_to_the_microsecond(log: EventLog) -> None:
    execution, end = new_id(START), START + timedelta(microseconds=1)
    await log.append(execution, 0, [submitted(START - timedelta(days=1)), killed(end)])
    assert list(await log.list_ended(end, 10)) == []
    assert list(await log.list_ended(end + timedelta(microseconds=1), 10)) == [execution]
