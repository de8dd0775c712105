import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from itertools import count
from pathlib import Path

import pytest

from pyexec.ports import BlobStore, EventLog
from tests.contract.logs import BLOBS, CONSUL, LOGS
from tests.support.consul import Agent, dev_agent

NewLog = Callable[[], AbstractAsyncContextManager[EventLog]]


@pytest.fixture(scope="session")
def consul_agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """A Consul that all contract tests share, each under a prefix of its own."""
    with dev_agent(tmp_path_factory.mktemp("consul")) as agent:
        os.environ[CONSUL] = agent.address
        yield agent
        del os.environ[CONSUL]


@pytest.fixture(params=LOGS)
def log_name(request: pytest.FixtureRequest) -> str:
    if request.param == "consul":
        request.getfixturevalue("consul_agent")
    return request.param


@pytest.fixture
def new_log(log_name: str, tmp_path: Path) -> NewLog:
    """Opens an empty log at each call."""
    numbers = count()
    return lambda: LOGS[log_name](tmp_path / f"log-{next(numbers)}")


@pytest.fixture
async def log(log_name: str, tmp_path: Path) -> AsyncIterator[EventLog]:
    async with LOGS[log_name](tmp_path / "log") as log:
        yield log


@pytest.fixture(params=BLOBS)
async def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BlobStore]:
    async with BLOBS[request.param](tmp_path / "blobs") as blobs:
        yield blobs
