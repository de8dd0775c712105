"""Fixtures for the checks, which run in the environment of one framework: clients of a real server."""

import base64
import os
from collections.abc import AsyncIterator, Iterator

import pytest

from pyexec_client import AsyncClient, Client

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
DRAW = f"""
class Picture:
    def _repr_png_(self):
        return {PNG!r}

print("drawn")
display(Picture())
"""
"""A program that shows an image."""
LONG = "print('a' * 30_000 + 'b' * 60_000 + 'c' * 10_000)"
SHORTENED = "aaaaa\n… 99990 characters left out …\nccccc"
"""The output of `LONG` that a model gets if the limit is 10 characters."""


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
