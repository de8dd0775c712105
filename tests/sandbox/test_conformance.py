"""Test that a program cannot detect if its interpreter was prestarted: two servers run the corpus, with and without
prestarted interpreters, and all results are equal."""

import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest
from attrs import frozen

from pyexec.guest.prestart import fits_pipe
from tests.sandbox.corpus import CORPUS, Case
from tests.support.api import Api, api_of
from tests.support.archives import tar_of
from tests.support.cases import sampled
from tests.support.server import Server, running_server

OF_ONE_RUN = {
    "execution_id", "created_at", "started_at", "finished_at", "duration_ms", "timings_ms", "usage",
}  # fmt: skip
NUMBERED = re.compile(r"0x[0-9a-f]{8,}|pid=\d+ parent=\d+")
"""Addresses, and the numbers of processes, of which a container's start uses up some more or less."""
MEBIBYTE = 1024 * 1024


@frozen
class Both:
    """Two servers, with and without prestarted interpreters."""

    ahead: Api
    afresh: Api

    async def results(self, case: Case) -> tuple[Any, Any]:
        """Return the results of a program on both servers."""
        found: dict[str, Any] = {}

        async def run(name: str, api: Api) -> None:
            answer = await api.sync(tar_of({"main.py": case.main, **case.files}), {"stdin": case.stdin})
            assert answer.status == 200, answer.document
            found[name] = answer.document

        async with anyio.create_task_group() as runs:
            runs.start_soon(run, "ahead", self.ahead, name="ahead")
            runs.start_soon(run, "afresh", self.afresh, name="afresh")
        return found["ahead"], found["afresh"]


@pytest.fixture(scope="module")
def servers(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    directory = tmp_path_factory.mktemp("conformance")
    with (
        running_server(directory / "ahead", image, standby="on") as ahead,
        running_server(directory / "afresh", image, standby="off") as afresh,
    ):
        yield ahead, afresh


@pytest.fixture
async def both(servers: tuple[Server, Server]) -> AsyncIterator[Both]:
    async with api_of(servers[0].url) as ahead, api_of(servers[1].url) as afresh:
        yield Both(ahead, afresh)


@sampled("name", CORPUS)
async def test_all_that_comes_out_is_the_same(both: Both, name: str) -> None:
    ahead, afresh = await both.results(CORPUS[name])
    assert seen(ahead) == seen(afresh)


@pytest.mark.parametrize("name", CORPUS)
def test_what_is_not_read_alike_is_known_as_such(name: str) -> None:
    assert fits_pipe(CORPUS[name].source) is CORPUS[name].waits


def seen(result: Any) -> Any:
    """All of a Result that is not bound to differ from run to run."""
    return {
        key: NUMBERED.sub("…", value) if isinstance(value, str) else value
        for key, value in result.items()
        if key not in OF_ONE_RUN
    }
