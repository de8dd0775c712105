"""Fixtures for the checks, which run in the environment of one framework: clients of a real server."""

import base64
import json
import os
from collections.abc import AsyncIterator, Iterator

import pytest

from pyexec_client import AsyncClient, Client
from tests.support.canned import Request, canned

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
DISPLAYED = {
    "execution_id": f"exe_{1:032x}",
    "status": "completed",
    "exit_code": 0,
    "stdout": "drawn\n",
    "displays": [
        {"data": {"text/plain": "<Figure>", "image/png": base64.b64encode(PNG).decode()}, "metadata": {}},
        {"data": {"text/html": "<b>a table</b>"}, "metadata": {}},
    ],
}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def url() -> str:
    return os.environ["PYEXEC_SERVER"]


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url) as client:
        yield client


@pytest.fixture
async def async_client(url: str) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(url) as client:
        yield client


@pytest.fixture
def drawing_url() -> Iterator[str]:
    """Run a server whose answer is always the result of a program that displayed an image."""

    def answer(request: Request) -> None:
        request.close_connection = True
        request.say("application/json", json.dumps(DISPLAYED).encode())

    with canned(answer) as url:
        yield url
