"""MCP clients of the shared server: each test runs over HTTP, in each era of the protocol."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

import pytest
from mcp import Client

from tests.support.api import Api, api_of
from tests.support.mcp import ERAS, http_client
from tests.support.server import Server

Connect = Callable[[], AbstractAsyncContextManager[Client]]


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
