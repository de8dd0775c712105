import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from itertools import count
from pathlib import Path

import pytest

from pyexec.adapters.consul.kv import ConsulKV
from pyexec.adapters.consul.log import ConsulLog
from pyexec.adapters.consul.membership import ConsulMembership
from pyexec.ports import BlobStore, EventLog
from tests.contract.logs import BLOBS, CONSUL, LOGS, consul_parts, in_own_task, prefix_of
from tests.support.consul import Agent, dev_agent
from tests.support.s3 import running_s3

Parts = tuple[ConsulKV, ConsulMembership, ConsulLog]
NewLog = Callable[[], AbstractAsyncContextManager[EventLog]]
SERVICES = {"consul": "consul_agent", "s3": "s3_server"}
"""Which fixture runs the service that a log or a blob store needs."""


@pytest.fixture(scope="session")
def consul_agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """A Consul agent shared by all contract tests. Each test uses its own prefix."""
    with dev_agent(tmp_path_factory.mktemp("consul")) as agent:
        os.environ[CONSUL] = agent.address
        yield agent
        del os.environ[CONSUL]


def params_of(names: Iterable[str]) -> list[object]:
    """Return the names as parameters of a fixture. Those that need a separate service are marked."""
    return [pytest.param(name, marks=pytest.mark.service) if name in SERVICES else name for name in names]


@pytest.fixture(params=params_of(LOGS))
def log_name(request: pytest.FixtureRequest) -> str:
    if request.param in SERVICES:
        request.getfixturevalue(SERVICES[request.param])
    return request.param


@pytest.fixture
def new_log(log_name: str, tmp_path: Path) -> NewLog:
    """Return a function that opens an empty log at each call."""
    numbers = count()
    return lambda: LOGS[log_name](tmp_path / f"log-{next(numbers)}")


@pytest.fixture
async def log(log_name: str, tmp_path: Path) -> AsyncIterator[EventLog]:
    async with LOGS[log_name](tmp_path / "log") as log:
        yield log


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An S3 server shared by all contract tests, in the environment variables that a client reads."""
    with running_s3(tmp_path_factory.mktemp("s3")) as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(params=params_of(BLOBS))
def blobs_name(request: pytest.FixtureRequest) -> str:
    if request.param in SERVICES:
        request.getfixturevalue(SERVICES[request.param])
    return request.param


@pytest.fixture
async def blobs(blobs_name: str, tmp_path: Path) -> AsyncIterator[BlobStore]:
    async with BLOBS[blobs_name](tmp_path / "blobs") as blobs:
        yield blobs


@pytest.fixture
async def parts(consul_agent: Agent, tmp_path: Path) -> AsyncIterator[Parts]:
    async with in_own_task(consul_parts(prefix_of(tmp_path), consul_agent.address)) as parts:
        yield parts
