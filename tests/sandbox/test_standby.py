"""Test which programs get the prestarted interpreter, and what happens if it fails."""

import os
import signal
import tarfile
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.support.api import Api, api_of
from tests.support.archives import member, tar_of
from tests.support.attack import COMPLETED, OUT_OF_MEMORY, end_of
from tests.support.cases import sampled
from tests.support.containers import containers, deployment_of
from tests.support.server import Server, running_server

POOL = 1
MEBIBYTE = 1024 * 1024
TAKEN, NOT_TAKEN = "taken\n", "not taken\n"

OLDER = """
import os
print('taken' if os.fstat(2).st_ctime_ns < os.stat(__file__).st_ctime_ns else 'not taken')
"""
"""Tells whether what the interpreter was started with is older than the script, whose archive was unpacked later."""
RUNS, PAUSE_SECONDS = 20, 0.1


@pytest.fixture(scope="module")
def standing(made: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data_dir = tmp_path_factory.mktemp("standing") / "data"
    with running_server(data_dir, made(customization=None), warm_pool=str(POOL), standby="on") as server:
        yield server


@pytest.fixture
async def api(standing: Server) -> AsyncIterator[Api]:
    async with api_of(standing.url) as client:
        yield client


async def run(api: Api, files: Mapping[str, Any], **metadata: Any) -> Any:
    answer = await api.sync(tar_of(files), metadata)
    assert answer.status == 200, answer.document
    return answer.document


@sampled(
    ("files", "metadata", "expected"),
    [
        pytest.param({}, {}, TAKEN, id="a plain program"),
        pytest.param({}, {"stdin": "x" * 200_000}, TAKEN, id="with an input"),
        pytest.param({}, {"entrypoint": "main.py"}, TAKEN, id="named"),
        pytest.param({"pkg/__init__.py": ""}, {"output_files": ["*.py"]}, TAKEN, id="files to bring back"),
        pytest.param({}, {"script_args": ["x"]}, TAKEN, id="arguments"),
        pytest.param({}, {"script_args": ["x" * 70_000]}, NOT_TAKEN, id="many arguments"),
        pytest.param({}, {"env_vars": ["A=b"]}, TAKEN, id="variables"),
        pytest.param({}, {"env_vars": ["TZ=UTC"]}, NOT_TAKEN, id="variables that are read at the start"),
        pytest.param({"other.py": OLDER}, {"entrypoint": "other.py"}, NOT_TAKEN, id="another entrypoint"),
        pytest.param({"main.py": "#" * 70_000 + OLDER}, {}, TAKEN, id="a long script"),
        pytest.param({"main.py": "# coding: latin-1" + OLDER}, {}, TAKEN, id="another encoding"),
        pytest.param({".local/x": ""}, {}, NOT_TAKEN, id="a user's site"),
    ],
    every=2,
)
async def test_programs_that_it_takes(
    api: Api, files: dict[str, str], metadata: dict[str, Any], expected: str
) -> None:
    result = await run(api, {"main.py": OLDER, **files}, **metadata)
    assert (result["stdout"], result.get("stderr")) == (expected, "")


async def test_a_link_is_followed(api: Api) -> None:
    """Its first entry of `sys.path` is the directory of the linked file."""
    link = member("main.py", kind=tarfile.SYMTYPE, target="real/main.py")
    archive = link + tar_of({"real/main.py": OLDER + "import beside", "real/beside.py": ""})
    result = (await api.sync(archive)).document
    assert (result["stdout"], result["exit_code"]) == (TAKEN, 0)


async def test_the_last_expression_is_evaluated_by_another_interpreter(api: Api) -> None:
    answer = await api.eval({"code": OLDER + "\n6 * 7", "eval_last_expr": True})
    assert (answer.document["stdout"], answer.document["result"]) == (NOT_TAKEN, "42")


async def test_one_that_was_killed_is_replaced(api: Api, standing: Server) -> None:
    """The kernel can kill it if the whole machine runs out of memory."""
    for tries in range(RUNS):  # until one happens in the sandbox that was waiting then
        await anyio.sleep(PAUSE_SECONDS * tries)
        for process in standbys(await containers(deployment_of(standing.data_dir))):
            os.kill(process, signal.SIGKILL)
        result = await run(api, {"main.py": OLDER})
        assert end_of(result) == COMPLETED
        if result["stdout"] == NOT_TAKEN:
            break
    assert result["stdout"] == NOT_TAKEN


def standbys(ids: Collection[str]) -> list[int]:
    """The interpreters that wait in these containers."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cmdline").read_bytes().endswith(b"\0main.py\0"):
                place = (process / "cgroup").read_text()
                found += [int(process.name) for container in ids if container in place]
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


async def test_off_starts_every_interpreter_at_the_go_ahead(image: str, tmp_path: Path) -> None:
    with running_server(tmp_path / "data", image, warm_pool=str(POOL), standby="off") as server:
        async with api_of(server.url) as api:
            assert (await api.run(OLDER))["stdout"] == NOT_TAKEN


@pytest.mark.parametrize("metadata", [{}, {"env_vars": ["A=b"]}], ids=["taken", "not taken"])
async def test_memory_is_counted_as_ever(api: Api, metadata: dict[str, Any]) -> None:
    """The interpreter's own counts as its program's, whenever it was started."""
    fill = "data = bytearray(1024 * 1024 * %d)\nfor n in range(0, len(data), 4096): data[n] = 1\n"
    config = {"memory_mb": 100}
    within = await run(api, {"main.py": fill % 90}, config=config, **metadata)
    assert end_of(within) == COMPLETED
    peak = within["usage"]["peak_memory_bytes"]
    assert 92 * MEBIBYTE < peak < 106 * MEBIBYTE
    assert 0 < within["usage"]["cpu_seconds"] < 5
    beyond = await run(api, {"main.py": fill % 99 + "import time; time.sleep(30)"}, config=config, **metadata)
    assert end_of(beyond) == OUT_OF_MEMORY


@sampled(
    "variables",
    ["PYTHONPATH=/work/lib", "PYTHONPATH=/usr:lib", "PYTHONPATH=/tmp/../work/lib", "PYTHONUSERBASE=/work/.x"],
)
async def test_an_image_whose_variables_lead_into_the_archive(
    api: Api, made: Callable[..., str], variables: str
) -> None:
    """Such an interpreter loads code from the archive at its start, so it starts after the archive is unpacked."""
    customization = "import builtins; builtins.found = 'found'"
    files = {
        "main.py": "print(found)",
        "lib/usercustomize.py": customization,
        ".x/lib/python3.11/site-packages/usercustomize.py": customization,
    }
    assert (await run(api, files, docker_image=made(variables)))["stdout"] == "found\n"


SCRIPT_IS_THERE = (
    "import os, stat\nready = os.path.exists('main.py') and stat.S_ISREG(os.stat('main.py').st_mode)\n"
)


@sampled(
    "customization",
    [
        pytest.param("if not ready: os._exit(3)", id="that ends it"),
        pytest.param("if not ready: os.kill(os.getpid(), 9)", id="that kills it"),
        pytest.param("if not ready: import time; time.sleep(3600)", id="that waits"),
        pytest.param("if not ready: os.write(2, bytes(200_000))", id="that prints more than a pipe takes"),
    ],
)
async def test_an_image_that_does_not_let_it_come_so_far(
    api: Api, made: Callable[..., str], customization: str
) -> None:
    image = made(customization=SCRIPT_IS_THERE + customization)
    result = await run(api, {"main.py": OLDER}, docker_image=image)
    assert (end_of(result), result["stdout"], result["stderr"]) == (COMPLETED, NOT_TAKEN, "")


async def test_what_an_image_itself_runs_comes_before_the_archive(api: Api, made: Callable[..., str]) -> None:
    """With variables, its code runs again in a new interpreter, because it could read them.

    This is a difference that docs/design/prestarted-interpreter.md names. The code runs once, and its output is
    kept."""
    image = made(customization=SCRIPT_IS_THERE + "print('customized', ready)")
    assert (await run(api, {"main.py": "print('run')"}, docker_image=image))[
        "stdout"
    ] == "customized False\nrun\n"
    later = await run(api, {"main.py": "print('run')"}, docker_image=image, env_vars=["A=b"])
    assert later["stdout"] == "customized True\nrun\n"
