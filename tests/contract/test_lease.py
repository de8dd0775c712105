"""Membership and leadership, and their end."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.request import Request, urlopen

import anyio
import pytest
from anyio import fail_after, to_thread
from attrs import evolve

from pyexec.adapters.consul.config import ConsulConfig
from pyexec.adapters.consul.kv import ConsulKV
from pyexec.adapters.consul.membership import TTL_SECONDS, ConsulMembership
from pyexec.adapters.single_member import SingleMember
from pyexec.errors import Conflict, ConsulSessionLost
from pyexec.ports import Membership
from tests.contract.logs import consul_parts, in_own_task, member, prefix_of
from tests.contract.other_replica import other_replica, said
from tests.contract.test_watch import PATIENCE
from tests.events import claimed, new_id, running, submitted
from tests.support.consul import Agent, dev_agent
from tests.support.processes import resume, suspend

pytestmark = pytest.mark.service

EXPIRY = 40
"""Timeout in seconds for the end of a session: Consul ends it up to twice the TTL after the last renewal."""


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
async def alone() -> SingleMember:
    return SingleMember()


async def member_again(membership: ConsulMembership) -> None:
    """Wait until the replica itself knows that it is a member. Others may know it a moment earlier."""
    with fail_after(EXPIRY):
        while True:
            try:
                membership.fence()
            except ConsulSessionLost:
                await anyio.sleep(0.01)
            else:
                return


@pytest.fixture(params=["alone", "one"])
def any_membership(request: pytest.FixtureRequest) -> Membership:
    return request.getfixturevalue(request.param)


def destroy(agent: Agent, session: str | None) -> None:
    """Destroy a session, as an operator can do."""
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


async def test_a_member_is_listed_until_it_leaves(any_membership: Membership) -> None:
    await any_membership.join(member("one"))
    assert (await any_membership.members()).members == {"one": member("one")}
    await any_membership.leave()
    await any_membership.leave()
    assert (await any_membership.members()).members == {}


async def test_a_member_that_drains_stays_a_member(any_membership: Membership) -> None:
    await any_membership.join(member("one"))
    version = (await any_membership.members()).version
    draining = evolve(member("one"), draining=True)
    await any_membership.update(draining)
    with fail_after(PATIENCE):
        assert (await any_membership.members(version)).members == {"one": draining}
    assert any_membership.is_member


async def test_leadership_can_be_acquired_again(any_membership: Membership) -> None:
    await any_membership.join(member("one"))
    with fail_after(PATIENCE):
        for _ in range(3):
            async with any_membership.lead():
                pass


async def test_an_exception_of_a_leader_is_raised_unchanged(any_membership: Membership) -> None:
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
    with pytest.raises(ConsulSessionLost):
        two.fence()
    await two.join(member("two"))
    await until(one, {"one", "two"})


async def test_an_evicted_replica_loses_both_sessions_at_once_and_joins_again(
    one: ConsulMembership, two: ConsulMembership
) -> None:
    """No other replica is touched, and none has to wait for the end of a TTL."""
    with fail_after(PATIENCE):
        async with two.lead():
            await one.evict("two")
            assert (await one.members()).members.keys() == {"one"}
            await anyio.sleep_forever()  # until the leadership is lost
        async with one.lead():
            await one.evict("two")
            await one.evict("unknown")
            await anyio.sleep(0.1)
    assert one.is_member
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


async def test_a_cancelled_candidate_does_not_block_others(
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


async def test_a_replica_without_session_appends_nothing_until_it_has_another(
    consul_agent: Agent, tmp_path: Path
) -> None:
    async with in_own_task(consul_parts(prefix_of(tmp_path), consul_agent.address)) as (_, membership, log):
        execution, me = new_id(), membership.fence().key.removeprefix("replicas/")
        await log.append(execution, 0, [submitted(), claimed(me)])
        await to_thread.run_sync(destroy, consul_agent, membership.fence().session)
        # The session has not expired by the local clock, but Consul rejects it.
        with pytest.raises(ConsulSessionLost):
            await log.append(execution, 2, [running()])
        assert len(await log.read(execution)) == 2
        await until(membership, {me})
        await member_again(membership)
        await log.append(execution, 2, [running()])
        with pytest.raises(Conflict):
            await log.append(execution, 2, [running()])


@pytest.mark.full  # the scene of tests/cluster/test_consul_outage.py waits for this expiry, too
async def test_leadership_expires_by_the_local_clock(tmp_path: Path) -> None:
    with dev_agent(tmp_path) as agent:
        assert agent.process is not None
        async with in_own_task(consul_parts("ours", agent.address)) as (_, membership, log):
            me = membership.fence().key.removeprefix("replicas/")
            with fail_after(EXPIRY):
                async with membership.lead():
                    suspend(agent.process)
                    await anyio.sleep_forever()
            try:
                with pytest.raises(ConsulSessionLost):
                    await log.append(new_id(), 0, [submitted()])
            finally:
                resume(agent.process)
            with fail_after(EXPIRY):
                async with membership.lead():
                    await until(membership, {me})
                    await member_again(membership)
            await log.append(new_id(), 0, [submitted()])


async def test_a_suspended_replica_does_not_write_with_an_expired_session(
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
                await log.append(execution, 2, [claimed(me)], fence="sleeper")
            with fail_after(EXPIRY):
                async with membership.lead():
                    await until(membership, {me})
                    sleeper.stdin.write("append\n")
                    sleeper.stdin.flush()
                    resume(sleeper)
                    heard = {await said(sleeper), await said(sleeper)}
                    assert heard == {"ConsulSessionLost", "leadership lost"}
                    assert len(await log.read(execution)) == 2
                    await until(membership, {me, "sleeper"})
                    answer = "ConsulSessionLost"  # until it knows that it is a member again
                    while answer == "ConsulSessionLost":
                        sleeper.stdin.write("append\n")
                        sleeper.stdin.flush()
                        answer = await said(sleeper)
                    assert answer == "appended"
