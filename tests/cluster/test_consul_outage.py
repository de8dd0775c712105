"""Test an outage of Consul under load: programs continue, new work is rejected, and every end is written."""

from pathlib import Path

import anyio
import pytest

from pyexec.domain.events import Claimed, Finished, Running, Submitted
from tests.cluster.conftest import OpenScene
from tests.cluster.scene_checks import check
from tests.support.api import api_of, until_not_ready
from tests.support.archives import script
from tests.support.cases import sampled
from tests.support.consul import cluster as consul_cluster
from tests.support.consul import durable_agent

pytestmark = pytest.mark.independent


@sampled("seconds", [12, 30], every=2)
async def test_the_cluster_survives_a_consul_outage_longer_than_a_session(
    scene: OpenScene, tmp_path: Path, jobs: int, seconds: int
) -> None:
    """A replica regards its session as lost 10 s after the last renewal."""
    with durable_agent(tmp_path / "consul") as consul:
        async with scene([consul], size=2) as s:
            running = [s.load.job(shortest=8, longest=12) for _ in s.cluster.urls]
            placed = list(zip(running, s.cluster.urls, strict=True))
            ids = [await s.load.submit(job, url) for job, url in placed]
            async with anyio.create_task_group() as tasks:
                for job, execution_id in zip(running, ids, strict=True):
                    await s.starts.until(job.mark)
                    tasks.start_soon(s.load.finish, job, execution_id, name=f"wait for {job.mark}")
                tasks.start_soon(s.load.run, jobs // 2, name="load before and after")
                await s.load.until_ended(jobs // 6)
                consul.kill()
                await anyio.sleep(seconds)  # this is the scenario itself
                for url in s.cluster.urls:  # sessions have expired; refused requests leave nothing
                    await check_refuses_work(url)
                consul.start()
                await anyio.to_thread.run_sync(consul.wait_ready)
                tasks.start_soon(s.load.run, jobs // 2, name="load after")
            logs = await check(f"{seconds} s without Consul", s.cluster, s.load, s.starts)
    for execution_id in ids:
        kinds = [type(event) for event in logs[execution_id]]
        assert kinds == [Submitted, Claimed, Running, Finished]


async def check_refuses_work(url: str) -> None:
    """Check that the server is healthy but not ready, and refuses a request with 503."""
    async with api_of(url) as api:
        assert "event log" in await until_not_ready(api)
        assert (await api.get("/health")).status == 200
        answer = await api.sync(script("print('never')"))
        assert (answer.status, answer.document["code"]) == (503, "unavailable")
        assert "Consul" in answer.document["error"]


@pytest.mark.full
async def test_consul_restarts(scene: OpenScene, tmp_path: Path, jobs: int) -> None:
    with durable_agent(tmp_path / "consul") as consul:
        async with scene([consul]) as s:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(s.load.run, jobs, name="load")
                for ended in (jobs // 6, jobs // 2):
                    await s.load.until_ended(ended)
                    consul.kill()
                    consul.start()
                    await anyio.to_thread.run_sync(consul.wait_ready)
            await check("Consul killed and restarted", s.cluster, s.load, s.starts)


@pytest.mark.full
async def test_the_leader_of_three_consul_servers_is_killed(
    scene: OpenScene, tmp_path: Path, jobs: int
) -> None:
    with consul_cluster(tmp_path / "consul") as agents:
        async with scene(agents) as s:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(s.load.run, jobs, name="load")
                await s.load.until_ended(jobs // 4)
                dead = next(agent for agent in agents if agent.is_leader())
                dead.kill()
                await s.load.until_ended(jobs * 2 // 3)
                dead.start()
                await anyio.to_thread.run_sync(dead.wait_ready)
            await check("leader of three Consul servers killed", s.cluster, s.load, s.starts)
