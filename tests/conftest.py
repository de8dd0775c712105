"""What every test may ask for: the real parts. One that is missing fails the tests."""

import os
from collections.abc import Iterator

import pytest

from tests.support.server import EVERYWHERE, Server, running_server


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--setting",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of every server that the tests start, such as local_claim=off",
    )
    parser.addoption(
        "--jobs",
        type=int,
        default=20,
        metavar="NUMBER",
        help="how many programs each scene of tests/cluster runs; `make soak` runs several hundred",
    )


def pytest_configure(config: pytest.Config) -> None:
    EVERYWHERE.update(setting.split("=", 1) for setting in config.getoption("--setting"))


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
