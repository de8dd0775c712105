"""Test replicas that crash, stop or are suspended under load: the others continue and finish their executions."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import anyio
import pytest

from pyexec.domain.events import Adopted, Claimed, Event, Failed, Finished, Released, Running, Submitted
from tests.cluster.conftest import OpenScene
from tests.cluster.scene_checks import after, check, recovery
from tests.support.api import api_of, form, parse_events
from tests.support.archives import script
from tests.support.cases import sampled
from tests.support.cluster import Cluster, Replica
from tests.support.consul import durable_agent

pytestmark = pytest.mark.independent


def now() -> datetime:
    return datetime.now(UTC)


@pytest.mark.full
async def test_a_replica_is_killed_and_comes_back(scene: OpenScene, tmp_path: Path, jobs: int) -> None:
    with durable_agent(tmp_path / "consul") as consul:
        async with scene([consul]) as s:
            leader = await s.cluster.leader()
            victim = next(replica for replica in s.cluster.replicas if replica is not leader)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(s.load.run, jobs, name="load")
                await s.load.until_ended(jobs // 4)
                await check_states(victim, s.cluster)
                at = now()
                await victim.kill()
                await check_states(leader, s.cluster, dead=victim)
                await s.load.until_ended(jobs * 2 // 3)
                await victim.start()
            logs = await check("kill -9 of a replica", s.cluster, s.load, s.starts)
    recoveries("kill -9 of a replica", at, logs)


async def test_the_leader_is_killed(scene: OpenScene, tmp_path: Path, jobs: int) -> None:
    """Other replicas adopt its running executions and run its queued ones."""
    with durable_agent(tmp_path / "consul") as consul:
        async with scene([consul]) as s:
            leader = await s.cluster.leader()
            dead = await s.cluster.leader_id()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(s.load.run, jobs, name="load")
                await s.load.until_ended(jobs // 4)
                at = now()
                await leader.kill()
                await s.cluster.leader_id(other_than=dead)
                failover = (now() - at).total_seconds()
            logs = await check("kill -9 of the leader", s.cluster, s.load, s.starts)
    recovery("kill -9 of the leader", "a new leader", [round(failover, 1)])
    recoveries("kill -9 of the leader", at, logs)


@pytest.mark.full
async def test_a_rolling_restart_by_sigterm(scene: OpenScene, tmp_path: Path, jobs: int) -> None:
    with durable_agent(tmp_path / "consul") as consul:
        async with scene([consul]) as s:
            taken_over = []
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(s.load.run, jobs, name="load")
                tasks.start_soon(partial(s.load.run, 3, longest=9.0), name="long ones")
                for round_ in range(3):
                    await s.load.until_ended(jobs * (round_ + 1) // 4)
                    leader, old = await s.cluster.leader(), await s.cluster.leader_id()
                    at = now()
                    async with anyio.create_task_group() as ending:
                        ending.start_soon(leader.term, name="SIGTERM")
                        await s.cluster.leader_id(other_than=old)
                        taken_over.append(round((now() - at).total_seconds(), 2))
                    await leader.start()
            await check("rolling restart by SIGTERM", s.cluster, s.load, s.starts)
    recovery("rolling restart by SIGTERM", "a new leader", taken_over)


async def test_a_sync_run_continues_on_another_replica_after_a_shutdown(
    scene: OpenScene, tmp_path: Path
) -> None:
    """This holds without an idempotency key, too: a shutdown does not count as a disconnected caller."""
    with durable_agent(tmp_path / "consul") as consul:
        async with scene([consul], size=2, stop_timeout="0.1") as s:
            first, second = s.cluster.replicas
            async with api_of(first.url) as api:
                body = form(script("import time\nprint('on', flush=True)\ntime.sleep(8)\nprint('end')"))
                headers = {"Accept": "text/event-stream"}
                async with api.session.post("/api/v1/exec/sync", data=body, headers=headers) as stream:
                    events = parse_events(stream)
                    execution_id = (await anext(events)).data["execution_id"]
                    while (await anext(events)).name != "output":
                        pass
                    await first.term()
            async with api_of(second.url) as api:
                result = await api.ended(execution_id)
                assert (result["status"], result["stdout"]) == ("completed", "on\nend\n")
            await s.cluster.stop()


@sampled("expires", [False, True], every=2)
async def test_a_replica_suspended_beyond_its_session_loses_its_runs_to_others(
    scene: OpenScene, tmp_path: Path, jobs: int, expires: bool
) -> None:
    """After SIGSTOP, other replicas adopt its runs. After SIGCONT, it appends nothing to these runs. With `expires`,
    Consul ends its session by the TTL; otherwise the test ends it."""
    shortest = 32 if expires else 14
    with durable_agent(tmp_path / "consul") as consul:
        async with scene([consul], size=3 if expires else 2) as s:
            leader = await s.cluster.leader()
            still = next(replica for replica in s.cluster.replicas if replica is not leader)
            running = [s.load.job(shortest=shortest, longest=shortest + 2) for _ in range(2)]
            ids = [await s.load.submit(job, still.url) for job in running]
            for job in running:
                await s.starts.until(job.mark)
            still_id = await s.cluster.id_of(still)
            at = now()
            still.pause()
            if not expires:
                await s.cluster.end_consul_session(still_id)
            s.load.urls = [url for url in s.cluster.urls if url != still.url]
            async with anyio.create_task_group() as tasks:
                for job, execution_id in zip(running, ids, strict=True):
                    tasks.start_soon(s.load.finish, job, execution_id, name=f"wait for {job.mark}")
                tasks.start_soon(s.load.run, jobs // 2, name="load")
                async with api_of(leader.url) as api:
                    for execution_id in ids:
                        await api.until_event(execution_id, "adopted")
                still.resume()
                await s.load.until_ended(jobs // 2)
                s.load.urls = s.cluster.urls
                tasks.start_soon(s.load.run, jobs // 4, name="load on all")
            logs = await check("SIGSTOP beyond the session", s.cluster, s.load, s.starts)
            for execution_id in ids:
                kinds = [type(event) for event in logs[execution_id]]
                assert kinds == [Submitted, Claimed, Running, Adopted, Finished]
    recoveries("SIGSTOP beyond the session", at, logs)


async def check_states(asked: Replica, cluster: Cluster, dead: Replica | None = None) -> None:
    """Check what a replica says about the cluster. It has not been asked before: answers are cached."""
    async with api_of(asked.url) as api:
        view = (await api.get("/api/v1/cluster")).document
    replicas = {each["address"]: each for each in view["replicas"]}
    # The other replicas evict a dead one 4 to 6 s after its end, so it may be gone from the list.
    if dead is not None and (state := replicas.pop(dead.url, None)) is not None:
        assert (state["ready"], state["warnings"]) == (False, ["the replica does not answer"])
    alive = {each.url for each in cluster.replicas if each is not dead}
    assert {url: each["ready"] for url, each in replicas.items()} == dict.fromkeys(alive, True)
    assert view["leader"] == await cluster.leader_id()
    assert [each["name"] for each in view["replicas"] if each["leader"]] == [view["leader"]]


def recoveries(scene: str, since: datetime, logs: Mapping[str, Sequence[Event]]) -> None:
    """Record how long after `since` the executions of a dead replica were adopted, released or marked lost."""
    for kind, what in ((Adopted, "adopted"), (Released, "released"), (Failed, "lost")):
        recovery(scene, what, after(since, logs, kind))
