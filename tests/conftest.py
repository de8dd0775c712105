"""Fixtures for all tests: the real parts. If one is missing, the tests fail."""

import gc
import os
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import hypothesis
import pytest
import pytest_asyncio
from xdist.remote import Producer

from tests.support.images import image_with_ipython, install_ipython, own_image
from tests.support.schedule import PHASES, UnitScheduling, arrange, once, seconds_by_folder
from tests.support.server import GLOBAL_SETTINGS, Server, installing_settings, running_server

if TYPE_CHECKING:
    from playwright.async_api import Browser

# A property may take as long as it needs: how fast the machine is says nothing about the code.
hypothesis.settings.register_profile("brief", deadline=None, max_examples=30)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=100)  # `make soak` chooses it
hypothesis.settings.load_profile("brief")
gc.disable()  # until all tests are collected, which leaves no garbage; looking for it takes a tenth of the time


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
        default=8,
        metavar="NUMBER",
        help="how many programs each scene of tests/cluster runs; `make soak` runs several hundred",
    )


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> UnitScheduling:
    return UnitScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    arrange(items)


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    found = [report for phase in PHASES for report in terminalreporter.stats.get(phase, ())]
    reports = [
        report for report in found if isinstance(report, pytest.TestReport)
    ]  # not of collection errors
    if reports:
        terminalreporter.section("seconds by folder, of all workers together")
    for folder, seconds, tests in seconds_by_folder(reports):
        terminalreporter.write_line(f"{seconds:7.1f} s  {tests:4} tests  {folder}")


def pytest_configure(config: pytest.Config) -> None:
    os.environ["PYEXEC_FIREWALL"] = (
        "off"  # for servers of `make run` and of the pages: tests share the networks
    )
    GLOBAL_SETTINGS.update(setting.split("=", 1) for setting in config.getoption("--setting"))


@pytest.fixture(scope="session")
def base_image() -> str:
    """Return the name of the Python image on the engine that all workers share."""
    name = os.environ.get("PYEXEC_TEST_IMAGE")
    if not name:
        pytest.fail("PYEXEC_TEST_IMAGE is not set; `make test` sets it")
    return name


@pytest.fixture(scope="session")
def image(base_image: str) -> Iterator[str]:
    """Return the name of a Python image on the engine. Each worker has its own image, so that its environments are
    separate."""
    with own_image(base_image) as own:
        yield own


@pytest.fixture(scope="session")
def session_image(base_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the name of an image like `image`, with IPython: interpreter sessions need no setup in it."""
    installed = once(
        tmp_path_factory, "ipython", lambda: install_ipython(base_image, tmp_path_factory.mktemp("ipython"))
    )
    with image_with_ipython(base_image, installed) as name:
        yield name


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> "AsyncIterator[Browser]":
    """Start a browser for all tests of a file, which must use the event loop of their module."""
    from tests.support.browser import running_browser  # few files need it

    async with running_browser() as browser:
        yield browser


@pytest.fixture(scope="session")
def server(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run one server for all tests that need no settings of their own."""
    with running_server(
        tmp_path_factory.mktemp("server") / "data", image, **installing_settings(), warm_pool="2"
    ) as shared:
        yield shared
