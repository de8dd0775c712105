"""Replicas that die, stop, or hold still under load: the others go on, and what they left comes to a true end."""

from datetime import UTC, datetime
from pathlib import Path

import anyio

from pyexec.domain.events import Adopted, Failed, Released
from tests.cluster.conftest import OpenScene
from tests.cluster.verdict import after, check, report
from tests.support.consul import durable_agent

JOBS = 40


async def test_a_replica_is_killed(scene: OpenScene, tmp_path: Path) -> None:
    with durable_agent(tmp_path / "consul") as consul:
        async with scene([consul]) as s:
            leader = await s.cluster.leader()
            victim = next(replica for replica in s.cluster.replicas if replica is not leader)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(s.load.run, JOBS, name="load")
                await s.load.until_ended(6)
                at = datetime.now(UTC)
                await victim.kill()
                await s.load.until_ended(JOBS * 3 // 4)
                await victim.start()
            logs = await check("kill -9 of a replica", s.cluster, s.load, s.starts)
    report("kill -9 of a replica, seconds after it", adopted=after(at, logs, Adopted), released=after(at, logs, Released), lost=after(at, logs, Failed))
