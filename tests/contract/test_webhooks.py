"""Test the outstanding webhooks of an event log: recorded by the first append, until they are removed."""

import anyio
import pytest
from anyio import fail_after
from attrs import evolve

from pyexec.domain.events import Submitted
from pyexec.errors import Conflict
from pyexec.ports import EventLog
from tests.contract.conftest import NewLog
from tests.contract.test_watch import PATIENCE
from tests.events import START, claimed, finished, new_id, running, submitted

URL, RECEIVER = "https://hooks.example.com/done?job=7", "https://hooks.example.com"
LATER = START.replace(year=START.year + 1)


def with_webhook() -> Submitted:
    event = submitted()
    return evolve(event, spec=evolve(event.spec, webhook_url=URL))


async def test_a_webhook_is_outstanding_from_the_first_event_until_it_is_removed(log: EventLog) -> None:
    execution, other = new_id(), new_id()
    assert (await log.webhooks()).receivers == {}
    await log.append(execution, 0, [with_webhook()])
    await log.append(other, 0, [submitted()])
    assert (await log.webhooks()).receivers == {execution: RECEIVER}
    await log.append(execution, 1, [claimed(), running(), finished()])
    await log.rebuild_index()
    assert (await log.webhooks()).receivers == {execution: RECEIVER}
    await log.remove_webhook(execution)
    await log.remove_webhook(execution)
    assert (await log.webhooks()).receivers == {}


async def test_a_rejected_append_records_no_webhook(log: EventLog) -> None:
    execution = new_id()
    await log.append(execution, 0, [submitted()])
    with pytest.raises(Conflict):
        await log.append(execution, 0, [with_webhook()])
    assert (await log.webhooks()).receivers == {}


async def test_a_watcher_wakes_at_a_new_and_at_a_removed_webhook(log: EventLog) -> None:
    executions = [new_id() for _ in range(4)]
    seen: set[str] = set()
    all_seen = anyio.Event()

    async def watch() -> None:
        found = await log.webhooks()
        while seen != set(executions) or found.receivers:
            seen.update(found.receivers)
            if seen == set(executions):
                all_seen.set()
            found = await log.webhooks(found.version)

    with fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch, name="watch of webhooks")
            for execution in executions:
                await log.append(execution, 0, [with_webhook()])
            await all_seen.wait()
            for execution in executions:
                await log.remove_webhook(execution)


async def test_an_undelivered_execution_is_kept_longer_and_retired_with_its_webhook(log: EventLog) -> None:
    execution, other = new_id(START), new_id(START)
    await log.append(execution, 0, [with_webhook(), claimed(), running(), finished()])
    await log.append(other, 0, [submitted(), claimed(), running(), finished()])
    assert list(await log.list_ended(LATER, 10, undelivered_before=START)) == [other]
    assert set(await log.list_ended(LATER, 10, undelivered_before=LATER)) == {execution, other}
    assert list(await log.list_ended(LATER, 1, undelivered_before=START)) == [other]
    await log.retire(execution)
    assert (await log.webhooks()).receivers == {}
    assert list(await log.list_ended(LATER, 10)) == [other]


async def test_logs_do_not_share_webhooks(new_log: NewLog) -> None:
    async with new_log() as log, new_log() as other:
        await log.append(new_id(), 0, [with_webhook()])
        assert (await other.webhooks()).receivers == {}
