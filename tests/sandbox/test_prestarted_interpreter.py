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

PRINT_IF_TAKEN = """
import os
print('taken' if os.fstat(2).st_ctime_ns < os.stat(__file__).st_ctime_ns else 'not taken')
"""
"""Prints "taken" if standard error is older than the script, so the interpreter was prestarted."""
RUNS, PAUSE_SECONDS = 20, 0.1


@pytest.fixture(scope="module")
def prestarting_server(
    made: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    data_dir = tmp_path_factory.mktemp("prestarting_server") / "data"
    with running_server(data_dir, made(customization=None), warm_pool=str(POOL), standby="on") as server:
        yield server


@pytest.fixture
async def api(prestarting_server: Server) -> AsyncIterator[Api]:
    async with api_of(prestarting_server.url) as client:
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
        pytest.param({"pkg/__init__.py": ""}, {"output_files": ["*.py"]}, TAKEN, id="output files"),
        pytest.param({}, {"script_args": ["x"]}, TAKEN, id="arguments"),
        pytest.param({}, {"script_args": ["x" * 70_000]}, NOT_TAKEN, id="many arguments"),
        pytest.param({}, {"env_vars": ["A=b"]}, TAKEN, id="variables"),
        pytest.param({}, {"env_vars": ["TZ=UTC"]}, NOT_TAKEN, id="variables that are read at the start"),
        pytest.param(
            {"other.py": PRINT_IF_TAKEN}, {"entrypoint": "other.py"}, NOT_TAKEN, id="another entrypoint"
        ),
        pytest.param({"main.py": "#" * 70_000 + PRINT_IF_TAKEN}, {}, TAKEN, id="a long script"),
        pytest.param({"main.py": "# coding: latin-1" + PRINT_IF_TAKEN}, {}, TAKEN, id="another encoding"),
        pytest.param({".local/x": ""}, {}, NOT_TAKEN, id="a user's site"),
    ],
    every=2,
)
async def test_which_programs_get_the_prestarted_interpreter(
    api: Api, files: dict[str, str], metadata: dict[str, Any], expected: str
) -> None:
    result = await run(api, {"main.py": PRINT_IF_TAKEN, **files}, **metadata)
    assert (result["stdout"], result.get("stderr")) == (expected, "")


async def test_a_link_is_followed(api: Api) -> None:
    """The first entry of `sys.path` must be the directory of the linked file."""
    link = member("main.py", kind=tarfile.SYMTYPE, target="real/main.py")
    archive = link + tar_of({"real/main.py": PRINT_IF_TAKEN + "import beside", "real/beside.py": ""})
    result = (await api.sync(archive)).document
    assert (result["stdout"], result["exit_code"]) == (TAKEN, 0)


async def test_eval_last_expr_gets_a_new_interpreter(api: Api) -> None:
    answer = await api.eval({"code": PRINT_IF_TAKEN + "\n6 * 7", "eval_last_expr": True})
    assert (answer.document["stdout"], answer.document["result"]) == (NOT_TAKEN, "42")


async def test_a_prestarted_interpreter_can_show(api: Api) -> None:
    for _ in range(2):  # in a new sandbox, and in one that is used again
        document = (await api.eval({"code": PRINT_IF_TAKEN + "display(1)"})).document
        assert (document["stdout"], document["stderr"]) == (TAKEN, "")
        assert document["displays"] == [{"data": {"text/plain": "1"}, "metadata": {}}]


async def test_a_killed_prestarted_interpreter_is_replaced(api: Api, prestarting_server: Server) -> None:
    """The kernel can kill an idle interpreter if the machine runs out of memory."""
    for tries in range(RUNS):  # until a run gets a sandbox whose interpreter was killed
        await anyio.sleep(PAUSE_SECONDS * tries)
        for process in prestarted_interpreters(await containers(deployment_of(prestarting_server.data_dir))):
            await kill(process)
        result = await run(api, {"main.py": PRINT_IF_TAKEN})
        assert end_of(result) == COMPLETED
        if result["stdout"] == NOT_TAKEN:
            break
    assert result["stdout"] == NOT_TAKEN


async def kill(pid: int) -> None:
    """Kill a process, and wait until it has ended."""
    pidfd = os.pidfd_open(pid)
    try:
        os.kill(pid, signal.SIGKILL)
        await anyio.wait_readable(pidfd)
    finally:
        os.close(pidfd)


def prestarted_interpreters(ids: Collection[str]) -> list[int]:
    """Return the process ids of the prestarted interpreters in these containers."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cmdline").read_bytes().endswith(b"\0main.py\0"):
                place = (process / "cgroup").read_text()
                found += [int(process.name) for container in ids if container in place]
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


@pytest.mark.parametrize("metadata", [{}, {"env_vars": ["A=b"]}], ids=["taken", "not taken"])
async def test_memory_is_counted_the_same_with_and_without_prestart(
    api: Api, metadata: dict[str, Any]
) -> None:
    """The memory of the interpreter counts as memory of the program, prestarted or not."""
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
    ("metadata", "is_prestarted"),
    [({}, True), ({"env_vars": ["A=b"]}, True), ({"env_vars": ["PYTHONHASHSEED=1"]}, False)],
    every=2,
)
async def test_the_memory_of_the_shortest_program_is_known(
    api: Api, metadata: dict[str, Any], is_prestarted: bool
) -> None:
    """The program ends before its first regular check, and an interpreter needs more than one megabyte.

    On a busy machine, a new interpreter may even end before the supervisor looks at it for the first time."""
    results = [await run(api, {"main.py": ""}, **metadata) for _ in range(5)]
    peaks = sorted(result["usage"]["peak_memory_bytes"] for result in results)
    assert peaks[0 if is_prestarted else -1] > 1_000_000
    assert peaks[-1] < 30_000_000


@sampled(
    "variables",
    ["PYTHONPATH=/work/lib", "PYTHONPATH=/usr:lib", "PYTHONPATH=/tmp/../work/lib", "PYTHONUSERBASE=/work/.x"],
    every=4,
)
async def test_an_image_with_python_paths_in_the_archive_gets_a_new_interpreter(
    api: Api, made: Callable[..., str], variables: str
) -> None:
    """Such an interpreter loads code from the archive at its start, so it starts after the archive is unpacked."""
    customization = "import builtins; builtins.found = 'found'"
    files = {
        "main.py": "print(found)",
        "lib/usercustomize.py": customization,
        **{f".x/lib/python3.{n}/site-packages/usercustomize.py": customization for n in range(8, 20)},
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
    every=4,
)
async def test_a_failed_prestart_falls_back_to_a_new_interpreter(
    api: Api, made: Callable[..., str], customization: str
) -> None:
    image = made(customization=SCRIPT_IS_THERE + customization)
    result = await run(api, {"main.py": PRINT_IF_TAKEN}, docker_image=image)
    assert (end_of(result), result["stdout"], result["stderr"]) == (COMPLETED, NOT_TAKEN, "")


async def test_sitecustomize_of_an_image_runs_before_the_archive_is_unpacked(
    api: Api, made: Callable[..., str]
) -> None:
    """With variables, its code runs again in a new interpreter, because it could read them.

    This is a difference that docs/design/prestarted-interpreter.md names. The code runs once, and its output is
    kept."""
    image = made(customization=SCRIPT_IS_THERE + "print('customized', ready)")
    assert (await run(api, {"main.py": "print('run')"}, docker_image=image))[
        "stdout"
    ] == "customized False\nrun\n"
    later = await run(api, {"main.py": "print('run')"}, docker_image=image, env_vars=["A=b"])
    assert later["stdout"] == "customized True\nrun\n"
