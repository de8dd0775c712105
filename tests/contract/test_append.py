"""Appending and reading: the log is create-only, gapless, and all or nothing."""

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyexec.domain.events import Event
from pyexec.errors import Conflict, KeyTaken
from pyexec.ports import EventLog, IdempotencyKey
from tests.events import any_event, claimed, failed, finished, killed, new_id, running, submitted
from tests.support.cases import examples


async def test_an_unknown_execution_has_no_events(log: EventLog) -> None:
    assert list(await log.read(new_id())) == []


async def test_appended_events_are_read_in_order(log: EventLog) -> None:
    execution, events = new_id(), [submitted(), claimed(), running()]
    await log.append(execution, 0, events)
    end = finished()
    await log.append(execution, 3, [end])
    assert list(await log.read(execution)) == [*events, end]
    for after in range(5):
        assert list(await log.read(execution, after)) == [*events, end][after:]


@settings(
    max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(batches=st.lists(st.lists(any_event, min_size=1, max_size=3), min_size=1, max_size=4))
async def test_any_event_survives_the_store(log: EventLog, batches: list[list[Event]]) -> None:
    execution, written = new_id(), []
    for batch in batches:
        if any(isinstance(event, ENDS) for event in written):
            break
        kept = batch[: next((n for n, event in enumerate(batch, 1) if isinstance(event, ENDS)), len(batch))]
        await log.append(execution, len(written), kept)
        written += kept
    assert list(await log.read(execution)) == written


ENDS = (type(finished()), type(failed()), type(killed()))


@pytest.mark.parametrize("after", [0, 1, 2, 4, 100])
async def test_an_append_with_another_length_is_a_conflict(log: EventLog, after: int) -> None:
    execution, events = new_id(), [submitted(), claimed(), running()]
    await log.append(execution, 0, events)
    with pytest.raises(Conflict):
        await log.append(execution, after, [finished()])
    assert list(await log.read(execution)) == events


async def test_a_log_cannot_start_after_its_first_event(log: EventLog) -> None:
    execution = new_id()
    with pytest.raises(Conflict):
        await log.append(execution, 1, [claimed()])
    assert list(await log.read(execution)) == []


@pytest.mark.parametrize("end", [finished(), failed(), killed()])
async def test_nothing_follows_the_end(log: EventLog, end: Event) -> None:
    execution, events = new_id(), [submitted(), claimed(), running(), end]
    await log.append(execution, 0, events)
    with pytest.raises(Conflict):
        await log.append(execution, 4, [killed()])
    assert list(await log.read(execution)) == events


async def test_several_events_are_written_all_or_none(log: EventLog) -> None:
    execution = new_id()
    with pytest.raises(Conflict):
        await log.append(execution, 0, [submitted(), killed(), claimed()])
    assert list(await log.read(execution)) == []
    assert execution not in (await log.open_executions()).lengths
    await log.append(execution, 0, [submitted()])


async def test_of_concurrent_appenders_exactly_one_wins(log: EventLog) -> None:
    execution, first = new_id(), submitted()
    await log.append(execution, 0, [first])
    rivals = [[claimed(f"replica-{n}"), running()] for n in range(20)]
    winners: list[list[Event]] = []

    async def append(events: list[Event]) -> None:
        try:
            await log.append(execution, 1, events)
        except Conflict:
            return
        winners.append(events)

    async with anyio.create_task_group() as rivalry:
        for number, events in enumerate(rivals):
            rivalry.start_soon(append, events, name=f"rival {number}")
    assert len(winners) == 1
    assert list(await log.read(execution)) == [first, *winners[0]]


async def test_executions_are_independent(log: EventLog) -> None:
    logs = {new_id(): [submitted(), claimed(f"replica-{n}"), running(), finished(n)] for n in range(10)}
    async with anyio.create_task_group() as writers:
        for execution, events in logs.items():
            writers.start_soon(log.append, execution, 0, events, name=f"append to {execution}")
    for execution, events in logs.items():
        assert list(await log.read(execution)) == events


async def test_a_key_is_bound_with_the_first_event(log: EventLog) -> None:
    execution = new_id()
    assert await log.find_by_key("hash") is None
    await log.append(execution, 0, [submitted()], key=IdempotencyKey(key_hash="hash", fingerprint="print"))
    assert await log.find_by_key("hash") == (execution, "print")
    other = new_id()
    with pytest.raises(KeyTaken) as taken:
        await log.append(other, 0, [submitted()], key=IdempotencyKey(key_hash="hash", fingerprint="else"))
    assert (taken.value.execution_id, taken.value.fingerprint) == (execution, "print")
    assert list(await log.read(other)) == []
    assert other not in (await log.open_executions()).lengths


async def test_a_rejected_append_binds_no_key(log: EventLog) -> None:
    execution = new_id()
    await log.append(execution, 0, [submitted()])
    with pytest.raises(Conflict):
        await log.append(
            execution, 0, [submitted()], key=IdempotencyKey(key_hash="hash", fingerprint="print")
        )
    assert await log.find_by_key("hash") is None


async def test_a_key_is_bound_once_under_concurrency(log: EventLog) -> None:
    accepted: list[str] = []
    named: set[str] = set()

    async def submit() -> None:
        execution = new_id()
        key = IdempotencyKey(key_hash="hash", fingerprint="print")
        try:
            await log.append(execution, 0, [submitted()], key=key)
            accepted.append(execution)
        except KeyTaken as taken:
            named.add(taken.execution_id)

    async with anyio.create_task_group() as callers:
        for number in range(20):
            callers.start_soon(submit, name=f"caller {number}")
    assert len(accepted) == 1
    assert named == set(accepted)
    assert (await log.open_executions()).lengths.keys() == set(accepted)


async def test_a_retired_execution_cannot_be_recreated(log: EventLog) -> None:
    execution, key = new_id(), IdempotencyKey(key_hash="hash", fingerprint="print")
    await log.append(execution, 0, [submitted(), killed()], key=key)
    await log.retire(execution)
    await log.retire(execution)
    assert list(await log.read(execution)) == []
    assert await log.find_by_key("hash") is None
    for after in (0, 1, 2):
        with pytest.raises(Conflict):
            await log.append(execution, after, [submitted()])
    assert list(await log.read(execution)) == []
    assert list((await log.list_executions(status=None, limit=10, cursor=None)).ids) == []
    await log.append(new_id(), 0, [submitted()], key=key)


async def test_only_an_ended_execution_can_be_retired(log: EventLog) -> None:
    execution, events = new_id(), [submitted(), claimed(), running()]
    await log.append(execution, 0, events)
    with pytest.raises(Conflict):
        await log.retire(execution)
    assert list(await log.read(execution)) == events


async def test_retiring_an_unknown_execution_does_nothing(log: EventLog) -> None:
    execution, event, kept = new_id(), submitted(), new_id()
    await log.append(kept, 0, [submitted(), killed()])
    before = await log.read(kept)
    await log.retire(execution)
    assert list(await log.read(execution)) == []
    assert await log.read(kept) == before
    assert list((await log.list_executions(status=None, limit=10, cursor=None)).ids) == [kept]
    await log.append(execution, 0, [event])
    assert list(await log.read(execution)) == [event]


async def test_a_cancelled_append_writes_all_events_or_none(log: EventLog) -> None:
    for turns in range(12):
        execution, events = new_id(), [submitted(), claimed(), running()]
        async with anyio.create_task_group() as writer:
            writer.start_soon(log.append, execution, 0, events, name="an append to be cancelled")
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
            writer.cancel_scope.cancel()
        assert list(await log.read(execution)) in ([], events)


async def test_a_check_passes_and_changes_nothing(log: EventLog) -> None:
    execution, events = new_id(), [submitted(), claimed()]
    await log.append(execution, 0, events)
    await log.check()
    assert list(await log.read(execution)) == events
    assert (await log.open_executions()).lengths == {execution: 2}
    await log.append(execution, 2, [running()])
    assert (await log.open_executions()).lengths == {execution: 3}
