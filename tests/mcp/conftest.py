"""MCP clients of the shared server: each test runs over HTTP, in each era of the protocol."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import pytest
from mcp import Client

from tests.support.api import Api, api_of
from tests.support.cases import keep_one_variant
from tests.support.mcp import ERAS, http_client
from tests.support.server import Server

STDIO_TESTS = Path(__file__).with_name("test_stdio.py")
Connect = Callable[[], AbstractAsyncContextManager[Client]]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let `make test` run each test over standard input and output in one era, since each starts a process that loads
    the SDK; `make soak` runs them in both."""
    for item in items:
        if isinstance(item, pytest.Function) and item.path == STDIO_TESTS and "revision" in item.fixturenames:
            keep_one_variant(item, "revision", list(ERAS))


@pytest.fixture(params=ERAS)
def revision(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def connect(server: Server, revision: str) -> Connect:
    """Return a function that connects a client. A fixture cannot do that: its tasks must end in the test's task."""
    return partial(http_client, server.url, revision)


@pytest.fixture
async def api(server: Server) -> AsyncIterator[Api]:
    async with api_of(server.url) as api:
        yield api
