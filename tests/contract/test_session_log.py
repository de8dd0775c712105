"""The event logs of sessions: create-only, gapless, all or nothing, and deleted only when closed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from pyexec.adapters.consul.session_log import ConsulSessionLog
from pyexec.adapters.sqlite.log import EmbeddedLog
from pyexec.errors import Conflict, ConsulSessionLost, TooLarge
from pyexec.ports import SessionLog
from tests.contract.conftest import Parts, params_of
from tests.contract.logs import consul_parts, in_own_task, prefix_of
from tests.events import closed, interpreter_restarted, new_session_id, opened, placed, session_adopted
from tests.support.consul import Agent

OWNER = "rep_owner"


@asynccontextmanager
async def embedded(location: Path) -> AsyncIterator[SessionLog]:
    async with await EmbeddedLog.open(location, OWNER) as log:
        yield log.sessions


@asynccontextmanager
async def consul(location: Path, agent: Agent) -> AsyncIterator[SessionLog]:
    prefix = prefix_of(location)
    async with (
        in_own_task(consul_parts(prefix, agent.address)) as (kv, membership, _),
        in_own_task(consul_parts(prefix, agent.address, OWNER)),
    ):
        yield ConsulSessionLog(kv, membership.fence)


@pytest.fixture(params=params_of(["embedded", "consul"]))
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SessionLog]:
    if request.param == "embedded":
        opening = embedded(tmp_path / "log")
    else:
        opening = consul(tmp_path, request.getfixturevalue("consul_agent"))
    async with opening as log:
        yield log


async def test_an_unknown_session_has_no_events(log: SessionLog) -> None:
    assert list(await log.read(new_session_id())) == []
    await log.retire(new_session_id())


async def test_appended_events_are_read_in_order(log: SessionLog) -> None:
    session, events = new_session_id(), [opened(), placed()]
    await log.append(session, 0, events)
    more = [interpreter_restarted(), closed()]
    await log.append(session, 2, more)
    assert list(await log.read(session)) == [*events, *more]
    assert dict((await log.all()).lengths) == {session: 4}


async def test_the_embedded_log_keeps_sessions_over_a_restart(tmp_path: Path) -> None:
    session, events = new_session_id(), [opened(), placed()]
    async with embedded(tmp_path) as log:
        await log.append(session, 0, events)
        before = (await log.all()).version
    async with embedded(tmp_path) as log:
        assert list(await log.read(session)) == events
        assert dict((await log.all()).lengths) == {session: 2}
        await log.append(session, 2, [closed()])
        assert (await log.all()).version > before  # a client that has that list gets the new one


@pytest.mark.parametrize("after", [0, 1, 3])
async def test_an_append_with_another_length_is_a_conflict(log: SessionLog, after: int) -> None:
    session, events = new_session_id(), [opened(), placed()]
    await log.append(session, 0, events)
    with pytest.raises(Conflict):
        await log.append(session, after, [session_adopted(), closed()])
    assert list(await log.read(session)) == events


async def test_of_concurrent_appends_one_is_written(log: SessionLog) -> None:
    session, outcomes = new_session_id(), []
    await log.append(session, 0, [opened(), placed()])

    async def adopt(replica: str) -> None:
        try:
            await log.append(session, 2, [session_adopted(replica)])
            outcomes.append(replica)
        except Conflict:
            outcomes.append("conflict")

    async with anyio.create_task_group() as tasks:
        for replica in ("a", "b", "c"):
            tasks.start_soon(adopt, replica)
    [winner] = set(outcomes) - {"conflict"}
    assert sorted(outcomes) == sorted([winner, "conflict", "conflict"])
    [adoption] = (await log.read(session))[2:]
    assert getattr(adoption, "replica", None) == winner


async def test_a_live_owner_fences_its_session(log: SessionLog) -> None:
    session, events = new_session_id(), [opened(), placed(OWNER)]
    await log.append(session, 0, events)
    with pytest.raises(Conflict):
        await log.append(session, 2, [session_adopted()], fence=OWNER)
    assert list(await log.read(session)) == events
    await log.append(session, 2, [session_adopted()], fence="rep_gone")


async def test_an_append_that_is_too_large_writes_nothing(parts: Parts) -> None:
    kv, membership, _ = parts
    log, session = ConsulSessionLog(kv, membership.fence), new_session_id()
    with pytest.raises(TooLarge):
        await log.append(session, 0, [opened()] * 100)
    assert list(await log.read(session)) == []


async def test_a_replica_that_is_not_a_member_writes_nothing(parts: Parts) -> None:
    kv, membership, _ = parts
    log, session = ConsulSessionLog(kv, membership.fence), new_session_id()
    stale = membership.fence()
    await membership.leave()
    with pytest.raises(ConsulSessionLost):
        await ConsulSessionLog(kv, lambda: stale).append(session, 0, [opened()])
    assert list(await log.read(session)) == []


async def test_all_waits_for_the_next_change(log: SessionLog) -> None:
    known = await log.all()
    assert dict(known.lengths) == {}
    first, second = new_session_id(), new_session_id()
    with anyio.fail_after(20):
        for session, after, events in (
            (first, 0, [opened(), placed()]),
            (second, 0, [opened(), placed()]),
            (first, 2, [closed()]),
        ):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(log.append, session, after, events)
                while known.lengths.get(session) != after + len(events):
                    known = await log.all(known.version)
        assert dict(known.lengths) == {first: 3, second: 2}
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(log.retire, first)
            while first in known.lengths:
                known = await log.all(known.version)


async def test_a_closed_session_is_retired_for_good(log: SessionLog) -> None:
    session = new_session_id()
    await log.append(session, 0, [opened(), placed()])
    with pytest.raises(Conflict):
        await log.retire(session)
    await log.append(session, 2, [closed()])
    await log.retire(session)
    assert list(await log.read(session)) == []
    assert dict((await log.all()).lengths) == {}
    with pytest.raises(Conflict):
        await log.append(session, 0, [opened(), placed()])
    await log.retire(session)
