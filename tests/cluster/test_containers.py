"""Test events on the engine: a container's process is killed, and replicas start and stop at the same time."""

import asyncio
import json
import os
import signal
from pathlib import Path

import anyio
import pytest

from pyexec.domain.events import Running
from tests.cluster.conftest import OpenScene
from tests.cluster.scene_checks import check, read_logs
from tests.support.cluster import Replica
from tests.support.consul import durable_agent

pytestmark = pytest.mark.independent


async def test_a_killed_container_fails_only_its_execution(
    scene: OpenScene, tmp_path: Path, jobs: int
) -> None:
    """The execution fails at once because its sandbox failed; the others are not affected."""
    with durable_agent(tmp_path / "consul") as consul:
        async with scene([consul], size=2) as s:
            job = s.load.job(shortest=60, longest=60)
            execution_id = await s.load.submit(job, s.cluster.urls[0])
            await s.starts.until(job.mark)
            events = (await read_logs(s.cluster.agents[0].address, [execution_id]))[execution_id]
            (container,) = (event.container for event in events if isinstance(event, Running))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(s.load.run, jobs // 2, name="load")
                os.kill(await process_of(container), signal.SIGKILL)
                result = await s.load.finish(job, execution_id)
            assert (result["status"], result["error_type"]) == ("failed", "internal")
            assert "sandbox" in result["error"]
            assert result["stdout"].startswith(f"started {job.mark} ")
            await check(
                "kill -9 of a container's process",
                s.cluster,
                s.load,
                s.starts,
                failures=["internal"],
                failures_max=1,
            )


@pytest.mark.full
async def test_restarting_replicas_leave_containers_of_other_replicas_alone(
    scene: OpenScene, tmp_path: Path, jobs: int
) -> None:
    """A starting replica never removes or adopts containers of a live replica, not even containers that are just
    starting."""
    with durable_agent(tmp_path / "consul") as consul:
        async with scene([consul], size=3, warm_pool="2") as s:
            busy, *others = s.cluster.replicas
            s.load.urls = [busy.url]
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(s.load.run, jobs, name="load on one")
                for _ in range(2):
                    async with anyio.create_task_group() as at_once:
                        for replica in others:
                            at_once.start_soon(restart, replica, name=f"restart {replica.name}")
            await check("two replicas restart, one keeps running", s.cluster, s.load, s.starts)
    assert "cannot be" not in busy.logs(), busy.logs()
    assert "of no use" not in busy.logs(), busy.logs()


async def restart(replica: Replica) -> None:
    await replica.kill()
    await replica.start()


async def process_of(container: str) -> int:
    """Return the process id, on this machine, of a container's first process."""
    inspect = await asyncio.create_subprocess_exec(
        "docker", "inspect", container, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await inspect.communicate()
    return int(json.loads(out)[0]["State"]["Pid"])
