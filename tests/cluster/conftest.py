"""Run clusters under load and observe them from outside. The measurements are printed at the end."""

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import aiohttp
import anyio
import pytest
from attrs import frozen

from tests.cluster.scene_checks import RECOVERIES, SCENE_RESULTS, table
from tests.support.cluster import Cluster, running_cluster
from tests.support.consul import Agent
from tests.support.load import ANSWER_SECONDS, Load
from tests.support.starts import Starts, observed_starts

SCENE_SECONDS = 200
JOB_SECONDS = 2


@frozen
class Scene:
    """A running cluster, a load for it, and the observed starts of its programs."""

    cluster: Cluster
    load: Load
    starts: Starts


OpenScene = Callable[..., AbstractAsyncContextManager[Scene]]


@pytest.fixture
def jobs(request: pytest.FixtureRequest) -> int:
    """Return the number of programs in the load of a scene."""
    return int(request.config.getoption("--jobs"))


@pytest.fixture
def scene(image: str, tmp_path: Path, jobs: int) -> OpenScene:
    """Return a function that opens a scene on Consul agents, with settings for the replicas. With `engine`, it uses
    that engine instead of the shared one.

    The scene fails after a timeout that depends on `jobs`."""

    @asynccontextmanager
    async def open_scene(
        agents: Sequence[Agent], *, size: int = 3, engine: str | None = None, **settings: str
    ) -> AsyncIterator[Scene]:
        async with (
            _patience(SCENE_SECONDS + jobs * JOB_SECONDS),
            running_cluster(tmp_path, image, agents, size, engine, **settings) as cluster,
            observed_starts(await cluster.deployment(), engine) as starts,
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS)) as http,
        ):
            yield Scene(cluster, Load(cluster.urls, http, random.Random(4)), starts)

    return open_scene


@asynccontextmanager
async def _patience(seconds: float) -> AsyncIterator[None]:
    with anyio.fail_after(seconds):
        yield


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the measurements as the tables of docs/soak.md."""
    for title, rows in (("the scenes", SCENE_RESULTS), ("recovery, in seconds", RECOVERIES)):
        if rows:
            terminalreporter.section(title)
            for line in table(rows):
                terminalreporter.write_line(line)
