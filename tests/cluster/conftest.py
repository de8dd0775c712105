"""Clusters under load, observed from outside; their figures are printed at the end."""

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import aiohttp
import anyio
import pytest
from attrs import frozen

from tests.cluster.verdict import FIGURES
from tests.support.cluster import Cluster, running_cluster
from tests.support.consul import Agent
from tests.support.load import ANSWER_SECONDS, Load
from tests.support.starts import Starts, observed_starts

SCENE_SECONDS = 200


@frozen
class Scene:
    """A cluster that runs, a load to put on it, and what is seen of its containers."""

    cluster: Cluster
    load: Load
    starts: Starts


OpenScene = Callable[..., AbstractAsyncContextManager[Scene]]


@pytest.fixture
def scene(image: str, tmp_path: Path) -> OpenScene:
    """Opens a scene on Consul agents, with settings for the replicas."""

    @asynccontextmanager
    async def open_scene(agents: Sequence[Agent], *, size: int = 3, **settings: str) -> AsyncIterator[Scene]:
        async with (
            patience(),
            running_cluster(tmp_path, image, agents, size, **settings) as cluster,
            observed_starts(await cluster.deployment()) as starts,
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS)) as http,
        ):
            yield Scene(cluster, Load(cluster.urls, http, random.Random(4)), starts)

    return open_scene


@asynccontextmanager
async def patience() -> AsyncIterator[None]:
    """What takes longer than this hangs."""
    with anyio.fail_after(SCENE_SECONDS):
        yield


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if FIGURES:
        terminalreporter.section("figures of the cluster")
        for line in FIGURES:
            terminalreporter.write_line(line)
