"""Test that a program finds a used sandbox as a new one, whatever the last program tried to leave in it."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest

from pyexec.domain.output_files import FileLimits
from pyexec.sandbox.decoder import Decoder
from pyexec.sandbox.guest_source import supervisor_command
from pyexec.sandbox.protocol import (
    Exited,
    ProgramPlan,
    Ready,
    Rejected,
    StartSignal,
    archive_frame,
    plan_frames,
    start_frame,
)
from tests.sandbox.reuse_programs import CLEAN, DIRTY, STATE
from tests.support.api import Api, api_of
from tests.support.archives import script, tar_of
from tests.support.attack import COMPLETED, NARROW, TIMEOUT, end_of
from tests.support.cases import sampled
from tests.support.server import Server, running_server

INFECTION = """
import os
try:
    file = os.open('/proc/self/fd/5', os.O_RDWR)
except OSError:
    pass
else:
    try:
        os.write(file, b'infected')
    except OSError:
        pass
    os.fchmod(file, 0)
"""
"""Code that an interpreter loads before startup.py, and that tries to change the file which contains startup.py."""


@pytest.fixture(scope="module")
def reusing(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with one slot and no other idle sandboxes: the next run gets the last sandbox, or a new one."""
    options = {**NARROW, "warm_pool": "0", "max_concurrent": "1", "default_disk_mb": "64"}
    with running_server(tmp_path_factory.mktemp("reusing") / "data", image, **options) as server:
        yield server


@pytest.fixture
async def api(reusing: Server) -> AsyncIterator[Api]:
    async with api_of(reusing.url) as api:
        yield api


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    """The first state that a program found."""
    return {}


async def state(api: Api, seen: dict[str, Any]) -> str:
    """Check that the next program finds the state that the first one found. Return what identifies its sandbox."""
    found = json.loads((await api.run(STATE))["stdout"])
    assert found["state"] == seen.setdefault("state", found["state"])
    return str(found["sandbox"])


@sampled("name", CLEAN, every=2)
async def test_a_cleaned_sandbox_is_like_a_new_one(api: Api, seen: dict[str, Any], name: str) -> None:
    before = await state(api, seen)
    result = await api.run(CLEAN[name])
    assert result["status"] == "completed", result
    assert await state(api, seen) == before


@pytest.mark.parametrize("name", DIRTY)
async def test_a_sandbox_that_cannot_be_cleaned_is_replaced(
    api: Api, seen: dict[str, Any], name: str
) -> None:
    before = await state(api, seen)
    assert end_of(await api.run(DIRTY[name])) == COMPLETED
    assert await state(api, seen) != before


async def test_startup_code_of_a_program_does_not_change_the_next_one(api: Api, seen: dict[str, Any]) -> None:
    before = await state(api, seen)
    site = ".local/lib/python3.11/site-packages"
    files = {
        "main.py": "print('ran')",
        f"{site}/x.pth": "import infection",
        f"{site}/infection.py": INFECTION,
    }
    answer = await api.sync(tar_of(files))
    assert answer.document["stdout"] == "ran\n"
    assert await state(api, seen) == before
    result = await api.run(
        "print(end='unfinished')\nimport time\ntime.sleep(9)", config={"timeout_seconds": 0.5}
    )
    assert result["stdout"] == "unfinished"


async def test_a_script_whose_name_begins_with_a_dash_is_no_option(api: Api) -> None:
    for name in ("-", "-mthis", "-c"):
        answer = await api.sync(
            tar_of({name: "print('own')"}), {"entrypoint": name, "stdin": "print('stdin')"}
        )
        assert answer.document["stdout"] == "own\n"


async def test_a_sandbox_is_used_again_after_a_timeout(api: Api, seen: dict[str, Any]) -> None:
    before = await state(api, seen)
    result = await api.run("while True: pass", config={"timeout_seconds": 0.3})
    assert end_of(result) == TIMEOUT
    assert await state(api, seen) == before


@sampled(
    ("error_type", "source"),
    [
        ("out_of_memory", "held = bytearray(1 << 30)"),
        ("cpu_limit", "while True: pass"),
        ("process_limit", "import os\nwhile True:\n try: os.fork()\n except OSError: pass"),
        (
            "disk_limit",
            "for at in '/work', '/tmp': open(f'{at}/x', 'wb').write(bytes(50 << 20))\nwhile True: pass",
        ),
        ("output_limit", "while True: print('x' * 100_000)"),
    ],
    every=2,
)
async def test_a_sandbox_is_replaced_after_a_limit(
    api: Api, seen: dict[str, Any], error_type: str, source: str
) -> None:
    before = await state(api, seen)
    result = await api.run(source, config={"cpu_seconds": 0.3 if error_type == "cpu_limit" else 20})
    assert result["error_type"] == error_type, result
    assert await state(api, seen) != before


async def test_a_sandbox_is_replaced_after_a_kill_and_after_a_program_with_network(
    api: Api, seen: dict[str, Any]
) -> None:
    before = await state(api, seen)
    execution_id = await api.accepted("print('up', flush=True)\nimport time\ntime.sleep(60)")
    await api.until_printed(execution_id, b"up")
    assert (await api.kill(execution_id)).document == {"status": "killed"}
    assert await state(api, seen) != before
    identify = "print(open('/proc/1/stat').read().rsplit(')', 1)[1].split()[19])"
    connected = [await api.run(identify, config={"network_disabled": False}) for _ in range(2)]
    assert len({result["stdout"] for result in connected}) == 2, connected


async def test_limits_and_usage_are_those_of_the_present_run(api: Api) -> None:
    first = await api.run("held = bytearray(40 << 20)\nfor _ in range(3_000_000): pass")
    second = await api.run("print(1)")
    third = await api.run("held = bytearray(40 << 20)\nprint(len(held))")
    assert first["usage"]["peak_memory_bytes"] > 40 << 20 > second["usage"]["peak_memory_bytes"]
    assert first["usage"]["cpu_seconds"] > second["usage"]["cpu_seconds"]
    assert third["stdout"] == f"{40 << 20}\n"


async def test_output_files_and_results_are_those_of_the_present_run(api: Api) -> None:
    for number in range(3):
        code = f"open('out-{number}', 'w').write('')\n{number}"
        answer = await api.eval({"code": code, "eval_last_expr": True, "output_files": ["out-*"]})
        found = answer.document["result"], [file["path"] for file in answer.document["files"]]
        assert found == (str(number), [f"out-{number}"])


async def test_a_used_sandbox_ends_some_time_after_its_server(image: str) -> None:
    """Until then, another server can read the end of the last program from the engine's log."""
    long, short = "LINGER_SECONDS = 120.0", "LINGER_SECONDS = 1.0"
    command = [part.replace(long, short) for part in supervisor_command(prestart=True)]
    mount = "uid=1000,gid=1000,exec"
    process = await asyncio.create_subprocess_exec(
        "docker", "run", "--interactive", "--rm", "--network", "none", "--read-only", "--user", "1000:1000",
        "--tmpfs", f"/work:{mount}", "--tmpfs", f"/tmp:{mount}", image, *command,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    plan = ProgramPlan(entrypoint="main.py", args=(), env=(), evaluate=False)
    start = StartSignal(
        nonce="n", timeout=10, memory_bytes=1 << 26, disk_bytes=1 << 26, output_bytes=100, output_files=(),
        file_limits=FileLimits(bytes_max=0), reuse=True, cpu_seconds=None,
    )  # fmt: skip
    archive = archive_frame(script("print('on')")) + archive_frame(b"")
    with anyio.fail_after(60):
        output, _ = await process.communicate(archive + plan_frames(plan, b"") + start_frame(start))
    *_, exited, ready, rejected = Decoder().feed(output)
    assert isinstance(exited, Exited)
    assert exited.reason == "exit"
    assert isinstance(ready, Ready)
    assert isinstance(rejected, Rejected)
    assert rejected.code == "abandoned"
