"""Test a restart of the Docker daemon under load. Its containers are gone afterwards.

The daemon removes them even with live restore, because they are created with auto-remove. For
programs that survive an outage of Docker, see tests/web/test_docker_outage.py."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import to_thread

from tests.cluster.conftest import OpenScene, Scene
from tests.cluster.scene_checks import check
from tests.support.api import api_of, until_not_ready
from tests.support.cases import sampled
from tests.support.consul import durable_agent
from tests.support.daemon import Daemon, own_daemon

SIZE, SLOTS = 2, 2


@pytest.fixture(scope="module")
def daemon(image: str) -> Iterator[Daemon]:
    """Run a separate daemon, so that the shared one is not affected."""
    with own_daemon(image) as own:
        yield own


async def restart(s: Scene, daemon: Daemon, number: signal.Signals, jobs: int) -> Any:
    """Restart the daemon under load. Return the result of a program that was running."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(s.load.run, jobs, name="load")
        await s.load.until_ended(jobs // 4)
        long = s.load.job(shortest=20, longest=21)
        execution_id = await s.load.submit(long, s.cluster.urls[0])
        tasks.start_soon(s.load.finish, long, execution_id, name="wait for the long one")
        await s.starts.until(long.mark)
        await to_thread.run_sync(daemon.end, number)
        for url in s.cluster.urls:
            await check_not_ready(url)
        await to_thread.run_sync(daemon.start)
    return s.load.results[long.mark]


async def check_not_ready(url: str) -> None:
    """Check that the server is healthy but not ready."""
    async with api_of(url) as api:
        assert "docker" in await until_not_ready(api)
        assert (await api.get("/health")).status == 200


@sampled("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name, every=2)
async def test_docker_restarts(
    scene: OpenScene, tmp_path: Path, jobs: int, daemon: Daemon, number: signal.Signals
) -> None:
    """Running programs end as `lost`; queued ones run afterwards."""
    with durable_agent(tmp_path / "consul") as consul:
        async with scene([consul], size=SIZE, engine=daemon.host) as s:
            result = await restart(s, daemon, number, jobs)
            assert (result["status"], result["error_type"]) == ("failed", "lost"), result
            assert "Docker became unavailable" in result["error"]
            await check(
                f"Docker restarted by {number.name}",
                s.cluster,
                s.load,
                s.starts,
                failures=["lost", "internal"],
                failures_max=SIZE * SLOTS,
            )
