"""The Docker daemon itself goes away under load and comes back, with its containers or without them."""

import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import to_thread

from pyexec.domain.events import Claimed, Finished, Running, Submitted
from tests.cluster.conftest import OpenScene, Scene
from tests.cluster.verdict import check
from tests.support.api import api_of, until_not_ready
from tests.support.consul import durable_agent
from tests.support.daemon import Daemon, own_daemon

SIZE, SLOTS = 2, 2


@pytest.fixture(scope="module")
def daemon(image: str) -> Iterator[Daemon]:
    """A daemon of our own: the shared one is never touched."""
    with own_daemon(image) as own:
        yield own


async def restart(s: Scene, daemon: Daemon, number: signal.Signals, jobs: int, *arguments: str) -> Any:
    """Ends the daemon under load, and starts it again; the Result of a program that ran meanwhile."""
    long = s.load.job(shortest=15, longest=16)
    execution_id = await s.load.submit(long, s.cluster.urls[0])
    await s.starts.until(long.mark)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(s.load.run, jobs, name="load")
        tasks.start_soon(s.load.finish, long, execution_id, name="wait for the long one")
        await s.load.until_ended(jobs // 4)
        await to_thread.run_sync(daemon.end, number)
        for url in s.cluster.urls:
            await check_says_so(url)
        await to_thread.run_sync(partial(daemon.start, *arguments))
    return s.load.results[long.mark]


async def check_says_so(url: str) -> None:
    """Healthy, and not ready."""
    async with api_of(url) as api:
        assert "docker" in await until_not_ready(api)
        assert (await api.get("/health")).status == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
async def test_docker_restarts_without_its_containers(
    scene: OpenScene, tmp_path: Path, jobs: int, daemon: Daemon, number: signal.Signals
) -> None:
    """What ran is lost and says so; what waited runs afterwards."""
    with durable_agent(tmp_path / "consul") as consul:
        async with scene([consul], size=SIZE, engine=daemon.host) as s:
            result = await restart(s, daemon, number, jobs)
            assert (result["status"], result["error_type"]) == ("failed", "lost"), result
            assert "Docker went away" in result["error"]
            await check(
                f"Docker restarted by {number.name}",
                s.cluster,
                s.load,
                s.starts,
                failures=["lost", "internal"],
                failures_max=SIZE * SLOTS,
            )


async def test_docker_restarts_and_its_containers_live_on(
    scene: OpenScene, tmp_path: Path, jobs: int, daemon: Daemon
) -> None:
    """With Docker's live restore a program goes on, and its replica follows it again."""
    await to_thread.run_sync(daemon.end, signal.SIGTERM)
    await to_thread.run_sync(daemon.start, "--live-restore")
    with durable_agent(tmp_path / "consul") as consul:
        async with scene([consul], size=SIZE, engine=daemon.host) as s:
            result = await restart(s, daemon, signal.SIGTERM, jobs, "--live-restore")
            assert result["status"] == "completed", result
            logs = await check("Docker restarted, live restore", s.cluster, s.load, s.starts)
    kinds = [type(event) for event in logs[result["execution_id"]]]
    assert kinds == [Submitted, Claimed, Running, Finished]
