"""Membership and leadership on Consul: who is alive, who leads, and what ends either."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import anyio
import pytest
from anyio import fail_after, to_thread

from pyexec.adapters.alone import Alone
from pyexec.adapters.consul_kv import ConsulConfig, ConsulKV
from pyexec.adapters.consul_lease import TTL_SECONDS, ConsulMembership
from pyexec.errors import Conflict, SessionLost
from pyexec.ports import Membership
from tests.contract.logs import consul_parts, in_own_task, member, prefix_of
from tests.contract.test_durability import ROOT
from tests.contract.test_watch import PATIENCE
from tests.events import claimed, new_id, running, submitted
from tests.support.consul import Agent, dev_agent
from tests.support.processes import resume, suspend

pytestmark = pytest.mark.service

EXPIRY = 40
"""Consul ends a session up to twice its TTL after its last renewal."""


@pytest.fixture
async def kv(consul_agent: Agent, tmp_path: Path) -> AsyncIterator[ConsulKV]:
    async with ConsulKV(ConsulConfig(address=consul_agent.address, prefix=prefix_of(tmp_path))) as kv:
        yield kv


@pytest.fixture
async def one(kv: ConsulKV) -> AsyncIterator[ConsulMembership]:
    async with in_own_task(ConsulMembership.open(kv)) as membership:
        await membership.join(member("one"))
        yield membership


@pytest.fixture
async def two(kv: ConsulKV) -> AsyncIterator[ConsulMembership]:
    async with in_own_task(ConsulMembership.open(kv)) as membership:
        await membership.join(member("two"))
        yield membership


@pytest.fixture
async def alone() -> Alone:
    return Alone()


async def member_again(membership: ConsulMembership) -> None:
    """Returns once the replica knows itself that it is a member: others may see it a moment before."""
    with fail_after(EXPIRY):
        while True:
            try:
                membership.fence()
            except SessionLost:
                await anyio.sleep(0.01)
            else:
                return


@pytest.fixture(params=["alone", "one"])
def any_membership(request: pytest.FixtureRequest) -> Membership:
    return request.getfixturevalue(request.param)


def destroy(agent: Agent, session: str | None) -> None:
    """What an operator might do."""
    request = Request(f"http://{agent.address}/v1/session/destroy/{session}", method="PUT")
    urlopen(request).close()


def session_info(agent: Agent, session: str | None) -> list[dict[str, object]]:
    with urlopen(f"http://{agent.address}/v1/session/info/{session}") as answer:
        found: list[dict[str, object]] = json.load(answer)
        return found


async def until(membership: Membership, expected: set[str]) -> None:
    version = None
    with fail_after(EXPIRY):
        while True:
            found = await membership.members(version)
            if found.members.keys() == expected:
                return
            version = found.version


async def test_a_member_is_seen_as_it_is(any_membership: Membership) -> None:
    await any_membership.join(member("one"))
    assert (await any_membership.members()).members == {"one": member("one")}
    await any_membership.leave()
    await any_membership.leave()
    assert (await any_membership.members()).members == {}


async def test_leadership_passes_on_when_it_is_left(any_membership: Membership) -> None:
    await any_membership.join(member("one"))
    with fail_after(PATIENCE):
        for _ in range(3):
            async with any_membership.lead():
                pass


async def test_what_a_leader_raises_comes_out_as_it_is(any_membership: Membership) -> None:
    await any_membership.join(member("one"))
    with fail_after(PATIENCE):
        with pytest.raises(ZeroDivisionError):
            async with any_membership.lead():
                raise ZeroDivisionError
        async with any_membership.lead():
            pass


async def test_members_see_each_other_come_and_go(one: ConsulMembership, two: ConsulMembership) -> None:
    await until(one, {"one", "two"})
    await two.leave()
    assert (await one.members()).members.keys() == {"one"}
    with pytest.raises(SessionLost):
        two.fence()
    await two.join(member("two"))
    await until(one, {"one", "two"})


async def test_there_is_one_leader_at_a_time(one: ConsulMembership, two: ConsulMembership) -> None:
    leaders: list[str] = []
    order: list[str] = []

    async def lead(membership: ConsulMembership, name: str) -> None:
        for _ in range(3):
            async with membership.lead():
                leaders.append(name)
                assert leaders == [name]
                order.append(name)
                await anyio.sleep(0.02)
                leaders.remove(name)

    with fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lead, one, "one", name="lead one")
            tasks.start_soon(lead, two, "two", name="lead two")
    assert sorted(order) == ["one"] * 3 + ["two"] * 3


async def test_losing_the_key_cancels_the_leader(
    kv: ConsulKV, consul_agent: Agent, one: ConsulMembership
) -> None:
    cancelled = False
    with fail_after(PATIENCE):
        async with one.lead():
            _, entry = await kv.get("leader")
            assert entry is not None
            await to_thread.run_sync(destroy, consul_agent, entry.session)
            try:
                await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class():
                cancelled = True
                raise
        assert cancelled
        async with one.lead():
            pass


async def test_a_cancelled_candidate_leaves_the_lead_to_others(
    one: ConsulMembership, two: ConsulMembership
) -> None:
    async def campaign() -> None:
        async with two.lead():
            raise AssertionError("there is a leader already")

    with fail_after(PATIENCE):
        async with one.lead(), anyio.create_task_group() as tasks:
            tasks.start_soon(campaign, name="campaign")
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        async with two.lead():
            pass


async def test_a_session_depends_on_nothing_but_its_renewal(
    kv: ConsulKV, consul_agent: Agent, one: ConsulMembership
) -> None:
    (session,) = await to_thread.run_sync(session_info, consul_agent, one.fence().session)
    assert session["Behavior"] == "delete"
    assert session["TTL"] == f"{TTL_SECONDS}s"
    assert session["LockDelay"] == 0
    assert not session.get("Checks")
    assert not session.get("NodeChecks")
    assert not session.get("ServiceChecks")


async def test_who_was_taken_for_dead_appends_nothing_until_it_is_back(
    consul_agent: Agent, tmp_path: Path
) -> None:
    async with in_own_task(consul_parts(prefix_of(tmp_path), consul_agent.address)) as (_, membership, log):
        execution, me = new_id(), membership.fence().key.removeprefix("replicas/")
        await log.append(execution, 0, [submitted(), claimed(me)])
        await to_thread.run_sync(destroy, consul_agent, membership.fence().session)
        # Its own clock says nothing yet; Consul does.
        with pytest.raises(SessionLost):
            await log.append(execution, 2, [running()])
        assert len(await log.read(execution)) == 2
        await until(membership, {me})
        await member_again(membership)
        await log.append(execution, 2, [running()])
        with pytest.raises(Conflict):
            await log.append(execution, 2, [running()])


async def test_a_silent_consul_ends_leadership_by_our_own_clock(tmp_path: Path) -> None:
    with dev_agent(tmp_path) as agent:
        assert agent.process is not None
        async with in_own_task(consul_parts("ours", agent.address)) as (_, membership, log):
            me = membership.fence().key.removeprefix("replicas/")
            with fail_after(EXPIRY):
                async with membership.lead():
                    suspend(agent.process)
                    await anyio.sleep_forever()
            try:
                with pytest.raises(SessionLost):
                    await log.append(new_id(), 0, [submitted()])
            finally:
                resume(agent.process)
            with fail_after(EXPIRY):
                async with membership.lead():
                    await until(membership, {me})
                    await member_again(membership)
            await log.append(new_id(), 0, [submitted()])


@contextmanager
def other_replica(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.contract.replica", *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


async def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return (await to_thread.run_sync(process.stdout.readline)).strip()


async def test_a_replica_that_slept_through_its_session_does_not_write(
    consul_agent: Agent, tmp_path: Path
) -> None:
    prefix, execution = prefix_of(tmp_path), new_id()
    async with in_own_task(consul_parts(prefix, consul_agent.address)) as (_, membership, log):
        me = membership.fence().key.removeprefix("replicas/")
        with other_replica(consul_agent.address, prefix, "sleeper", execution) as sleeper:
            assert sleeper.stdin is not None
            assert await said(sleeper) == "leading"
            await until(membership, {me, "sleeper"})
            suspend(sleeper)
            with pytest.raises(Conflict):
                await log.append(execution, 2, [claimed(me)], gone="sleeper")
            with fail_after(EXPIRY):
                async with membership.lead():
                    await until(membership, {me})
                    sleeper.stdin.write("append\n")
                    sleeper.stdin.flush()
                    resume(sleeper)
                    heard = {await said(sleeper), await said(sleeper)}
                    assert heard == {"SessionLost", "leads no more"}
                    assert len(await log.read(execution)) == 2
                    await until(membership, {me, "sleeper"})
                    answer = "SessionLost"  # until it knows itself that it is back
                    while answer == "SessionLost":
                        sleeper.stdin.write("append\n")
                        sleeper.stdin.flush()
                        answer = await said(sleeper)
                    assert answer == "appended"
