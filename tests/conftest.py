"""What every test may ask for: the real parts. One that is missing fails the tests."""

import os
from collections.abc import Iterator

import pytest

from tests.support.server import Server, running_server


@pytest.fixture(scope="session")
def image() -> str:
    """The name of an image with Python, there on the engine."""
    name = os.environ.get("PYEXEC_TEST_IMAGE")
    if not name:
        pytest.fail("PYEXEC_TEST_IMAGE is not set; `make test` sets it")
    return name


@pytest.fixture(scope="session")
def server(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server that all tests share that need no settings of their own."""
    with running_server(tmp_path_factory.mktemp("server") / "data", image) as shared:
        yield shared
