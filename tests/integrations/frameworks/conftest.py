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
