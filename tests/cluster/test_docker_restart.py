"""Test a restart of the Docker daemon under load. Its containers are gone afterwards.

Those of ours it removes at its restart even with live restore, since they are to be removed at their end. How a
program is followed anew that lives on is tested in tests/web/test_engine_away.py."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import to_thread

from tests.cluster.conftest import OpenScene, Scene
from tests.cluster.verdict import check
from tests.support.api import api_of, until_not_ready
from tests.support.cases import sampled
from tests.support.consul import durable_agent
from tests.support.daemon import Daemon, own_daemon

SIZE, SLOTS = 2, 2


@pytest.fixture(scope="module")
def daemon(image: str) -> Iterator[Daemon]:
    """A daemon of our own: the shared one is never touched."""
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
            await check_says_so(url)
        await to_thread.run_sync(daemon.start)
    return s.load.results[long.mark]


async def check_says_so(url: str) -> None:
    """Healthy, and not ready."""
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
