"""Replicas that die, stop, or hold still under load: the others go on, and what they left comes to a true end."""

from datetime import UTC, datetime
from pathlib import Path

import anyio

from pyexec.domain.events import Adopted, Failed, Released
from tests.cluster.conftest import OpenScene
from tests.cluster.verdict import after, check, report
from tests.support.consul import durable_agent

JOBS = 40
FAILOVER_SECONDS = 22
"""Consul ends a session 17 to 20 s after its last renewal."""


def now() -> datetime:
    return datetime.now(UTC)


async def test_a_replica_is_killed_and_comes_back(scene: OpenScene, tmp_path: Path) -> None:
    with durable_agent(tmp_path / "consul") as consul:
        async with scene([consul]) as s:
            leader = await s.cluster.leader()
            victim = next(replica for replica in s.cluster.replicas if replica is not leader)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(s.load.run, JOBS, name="load")
                await s.load.until_ended(6)
                at = now()
                await victim.kill()
                await s.load.until_ended(JOBS * 2 // 3)
                await victim.start()
            logs = await check("kill -9 of a replica", s.cluster, s.load, s.starts)
    report(
        "seconds after the kill",
        adopted=after(at, logs, Adopted),
        released=after(at, logs, Released),
        lost=after(at, logs, Failed),
    )


async def test_the_leader_is_killed(scene: OpenScene, tmp_path: Path) -> None:
    """Programs that run for long and wait for long on the one that dies: adopted, or run elsewhere."""
    with durable_agent(tmp_path / "consul") as consul:
        async with scene([consul]) as s:
            leader = await s.cluster.leader()
            dead = await s.cluster.leader_id()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(s.load.run, JOBS, name="load")
                await s.load.until_ended(6)
                at = now()
                await leader.kill()
                await s.cluster.leader_id(other_than=dead)
                failover = (now() - at).total_seconds()
            logs = await check("kill -9 of the leader", s.cluster, s.load, s.starts)
    report(
        "seconds after the kill",
        new_leader=round(failover, 1),
        adopted=after(at, logs, Adopted),
        released=after(at, logs, Released),
    )


async def test_a_rolling_restart_by_sigterm(scene: OpenScene, tmp_path: Path) -> None:
    with durable_agent(tmp_path / "consul") as consul:
        async with scene([consul]) as s:
            taken_over = []
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(s.load.run, JOBS, name="load")
                tasks.start_soon(s.load.run, 4, name="long ones")
                for round_ in range(3):
                    await s.load.until_ended(8 * (round_ + 1))
                    leader, old = await s.cluster.leader(), await s.cluster.leader_id()
                    at = now()
                    async with anyio.create_task_group() as ending:
                        ending.start_soon(leader.term, name="SIGTERM")
                        await s.cluster.leader_id(other_than=old)
                        taken_over.append(round((now() - at).total_seconds(), 2))
                    await leader.start()
            logs = await check("rolling restart by SIGTERM", s.cluster, s.load, s.starts)
    adopted = sum(isinstance(event, Adopted) for events in logs.values() for event in events)
    report("SIGTERM of the leader", seconds_to_a_new_leader=taken_over, adopted=adopted)
