"""Inboxes: an append notifies a replica in the same step."""

import anyio
import pytest
from anyio import fail_after

from pyexec.errors import Conflict
from pyexec.ports import EventLog
from tests.contract.test_watch import PATIENCE
from tests.events import claimed, kill_requested, new_id, released, submitted

ME, OTHER = "rep_me", "rep_other"


async def test_a_notification_is_in_the_inbox(log: EventLog) -> None:
    execution = new_id()
    assert (await log.inbox(ME)).entries == {}
    await log.append(execution, 0, [submitted(), claimed(ME)], notify=ME)
    assert (await log.inbox(ME)).entries.keys() == {execution}
    assert (await log.inbox(OTHER)).entries == {}


async def test_a_rejected_append_notifies_no_replica(log: EventLog) -> None:
    execution = new_id()
    await log.append(execution, 0, [submitted()])
    with pytest.raises(Conflict):
        await log.append(execution, 0, [submitted()], notify=ME)
    with pytest.raises(Conflict):
        await log.append(new_id(), 1, [claimed(ME)], notify=ME)
    assert (await log.inbox(ME)).entries == {}


async def test_an_acknowledged_entry_is_removed_and_can_return(log: EventLog) -> None:
    execution, other = new_id(), new_id()
    await log.append(execution, 0, [submitted(), claimed(ME)], notify=ME)
    await log.append(other, 0, [submitted(), claimed(ME)], notify=ME)
    number = (await log.inbox(ME)).entries[execution]
    await log.acknowledge(ME, execution, number)
    await log.acknowledge(ME, execution, number)
    await log.acknowledge(OTHER, execution, number)
    assert (await log.inbox(ME)).entries.keys() == {other}
    await log.append(execution, 2, [released()], notify=ME)
    assert (await log.inbox(ME)).entries.keys() == {execution, other}


async def test_a_watcher_of_an_inbox_wakes_at_a_notification(log: EventLog) -> None:
    executions = [new_id() for _ in range(5)]

    async def watch() -> None:
        inbox = await log.inbox(ME)
        while inbox.entries.keys() != set(executions):
            inbox = await log.inbox(ME, inbox.version)

    with fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch, name="watch of an inbox")
            for execution in executions:
                await log.append(execution, 0, [submitted()], notify=ME)


async def test_the_fence_accepts_replicas_that_are_not_members(log: EventLog) -> None:
    execution = new_id()
    await log.append(execution, 0, [submitted(), claimed("rep_dead")])
    await log.append(execution, 2, [released()], fence="rep_dead")
    assert (await log.open_executions()).lengths == {execution: 3}


async def test_a_second_notification_survives_the_acknowledgement_of_the_first(log: EventLog) -> None:
    """Otherwise a kill request could be lost while the replica handles the first notification."""
    execution = new_id()
    await log.append(execution, 0, [submitted()])
    await log.append(execution, 1, [claimed(ME)], notify=ME)
    inbox = await log.inbox(ME)
    await log.append(execution, 2, [kill_requested()], notify=ME)
    await log.acknowledge(ME, execution, inbox.entries[execution])
    again = await log.inbox(ME, inbox.version)
    assert again.entries.keys() == {execution}
    await log.acknowledge(ME, execution, again.entries[execution])
    assert (await log.inbox(ME)).entries == {}
