from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from itertools import count
from pathlib import Path

import pytest

from pyexec.ports import BlobStore, EventLog
from tests.contract.logs import BLOBS, LOGS

NewLog = Callable[[], AbstractAsyncContextManager[EventLog]]


@pytest.fixture(params=LOGS)
def log_name(request: pytest.FixtureRequest) -> str:
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
