"""Test that a program cannot detect if its interpreter was prestarted: two servers run the corpus, with and without
prestarted interpreters, and all results are equal. A program that starts its own copy cannot detect startup.py."""

import re
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import pytest
from attrs import frozen

from tests.sandbox.corpus import CORPUS, Case
from tests.sandbox.test_prestarted_interpreter import NOT_TAKEN, PRINT_IF_TAKEN, TAKEN
from tests.support.api import Api, api_of
from tests.support.archives import tar_of
from tests.support.cases import sampled
from tests.support.server import Server, running_server

OF_ONE_RUN = {
    "execution_id", "created_at", "started_at", "finished_at", "duration_ms", "timings_ms", "usage",
}  # fmt: skip
NUMBERED = re.compile(r"0x[0-9a-f]{8,}|pid=\d+ parent=\d+")
"""Memory addresses and process ids, which differ between runs."""
MEBIBYTE = 1024 * 1024


@frozen
class Both:
    """Two servers, with and without prestarted interpreters."""

    ahead: Api
    without_prestart: Api

    async def results(self, case: Case) -> tuple[Any, Any]:
        """Return the results of a program on both servers."""
        found: dict[str, Any] = {}

        async def run(name: str, api: Api) -> None:
            archive = tar_of({"main.py": case.main, **case.files})
            answer = await api.sync(archive, {"stdin": case.stdin, **case.metadata})
            assert answer.status == 200, answer.document
            found[name] = answer.document

        async with anyio.create_task_group() as runs:
            runs.start_soon(run, "ahead", self.ahead, name="ahead")
            runs.start_soon(run, "without_prestart", self.without_prestart, name="without_prestart")
        return found["ahead"], found["without_prestart"]


@pytest.fixture(scope="module")
def servers(
    made: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Server]]:
    directory = tmp_path_factory.mktemp("conformance")
    image = made(customization=None)  # an image with one gets a new interpreter for variables
    same_user = {"sandbox_uids": "1000"}
    with (
        running_server(directory / "ahead", image, standby="on", **same_user) as ahead,
        running_server(directory / "without_prestart", image, standby="off", **same_user) as without_prestart,
    ):
        yield ahead, without_prestart


@pytest.fixture
async def both(servers: tuple[Server, Server]) -> AsyncIterator[Both]:
    async with api_of(servers[0].url) as ahead, api_of(servers[1].url) as without_prestart:
        yield Both(ahead, without_prestart)


@sampled("name", CORPUS, every=6)
async def test_results_with_and_without_prestart_are_equal(both: Both, name: str) -> None:
    ahead, without_prestart = await both.results(CORPUS[name])
    assert seen(ahead) == seen(without_prestart)


async def test_standby_off_starts_every_interpreter_at_the_start_signal(both: Both) -> None:
    assert (await both.without_prestart.run(PRINT_IF_TAKEN))["stdout"] == NOT_TAKEN
    assert (await both.ahead.run(PRINT_IF_TAKEN))["stdout"] == TAKEN


COPY = """
import gc, os, re, subprocess, sys, threading, warnings
def show(value):
    print(re.sub('0x[0-9a-f]+', 'ADDRESS', repr(value)))
show((sys.argv, sys.orig_argv, sys.flags, sys.path, sys._xoptions, sys.warnoptions, warnings.filters, __file__))
show((sorted(sys.modules), sys.path_importer_cache, sys.meta_path, sys.path_hooks, sys.modules['zipimport'].__dict__))
show((sys.stdin, sys.stdout, sys.stderr, sys.stdout.buffer.raw, sys.stderr.line_buffering, sys.stdout.write_through))
show((sys._getframe().f_back, globals(), threading.active_count(), gc.isenabled(), gc.get_threshold()))
show(sorted((k, v) for k, v in os.environ.items() if k not in ('PYTHONUNBUFFERED', 'LC_CTYPE', 'OLD')))
show((sorted(os.listdir('/proc/self/fd')), os.listdir(), sorted(os.listdir('/tmp'))))
print('--', flush=True)
if 'OLD' not in os.environ:
    bare = {k: v for k, v in os.environ.items() if k != 'PYTHONUNBUFFERED'}
    subprocess.run([sys.executable, *sys.orig_argv[1:]], env={**bare, 'OLD': '1'})
"""


@sampled(
    "metadata", [{"script_args": ["x"], "env_vars": ["A=b"]}, {}, {"env_vars": ["PYTHONPATH=/work"]}], every=2
)
async def test_nothing_is_left_of_the_start(both: Both, metadata: dict[str, Any]) -> None:
    for result in await both.results(Case(COPY, metadata=metadata)):
        first, second, end = result["stdout"].split("--\n")
        assert (first, end) == (second, "")


def seen(result: Any) -> Any:
    """Return the parts of a result that must be equal on both servers."""
    return {
        key: NUMBERED.sub("…", value) if isinstance(value, str) else value
        for key, value in result.items()
        if key not in OF_ONE_RUN
    }
