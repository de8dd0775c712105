"""Test the pool: its sandboxes have the most requested kinds, and never exceed its size."""

import asyncio
import json
import secrets
import shlex
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from tests.support.api import Api, api_of
from tests.support.containers import changes, containers, deployment_of, until_containers
from tests.support.server import SETUP_NETWORK, Server, running_server

pytestmark = pytest.mark.independent

MEBIBYTE = 2**20
SMALL = {"memory_mb": 64, "disk_mb": 16}


async def inspected(server: Server) -> list[dict[str, object]]:
    """Return what `docker inspect` reports of each container of this server."""
    ids = await containers(deployment_of(server.data_dir))
    if not ids:
        return []
    process = await asyncio.create_subprocess_exec(
        "docker", "inspect", *ids, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    out, _ = await process.communicate()
    return list(json.loads(out))


async def sizes(server: Server) -> Counter[int]:
    """Count the server's containers by the size of /work in MiB."""
    found: Counter[int] = Counter()
    for document in await inspected(server):
        options = document["HostConfig"]["Tmpfs"]["/work"]  # type: ignore[index]
        (size,) = (option for option in options.split(",") if option.startswith("size="))
        found[int(size.partition("=")[2]) // MEBIBYTE] += 1
    return found


async def until_sizes(server: Server, wanted: dict[int, int]) -> None:
    """Wait until the server has exactly these containers."""
    found: Counter[int] = Counter()
    try:
        with anyio.fail_after(60):
            async with changes(deployment_of(server.data_dir), None) as changed:
                while (found := await sizes(server)) != wanted:
                    await changed()
    except TimeoutError:
        raise AssertionError(f"there are {dict(found)}, not {wanted}") from None


@asynccontextmanager
async def serving(directory: Path, image: str, **settings: str) -> AsyncIterator[tuple[Server, Api]]:
    with running_server(directory / "data", image, **SETUP_NETWORK, **settings) as server:
        async with api_of(server.url) as api:
            yield server, api


@pytest.mark.full
async def test_the_most_requested_kind_is_kept_warm(image: str, tmp_path: Path) -> None:
    async with serving(tmp_path, image, warm_pool="4") as (server, api):
        await until_sizes(server, {2048: 4})
        for _ in range(6):
            assert (await api.run("print('hello')", config=SMALL))["stdout"] == "hello\n"
        await until_sizes(server, {2048: 1, 16: 3})
        for _ in range(12):
            assert (await api.run("print('hello')"))["stdout"] == "hello\n"
        await until_sizes(server, {2048: 3, 16: 1})


async def test_a_requested_environment_is_kept_warm(image: str, tmp_path: Path) -> None:
    commands = ["echo here > /note"]
    async with serving(tmp_path, image, warm_pool="2") as (
        server,
        api,
    ):
        await until_containers(deployment_of(server.data_dir), 2)
        for _ in range(3):
            result = await api.run("print(open('/note').read())", pre_commands=commands)
            assert result["stdout"] == "here\n\n", result
        with anyio.fail_after(60):
            async with changes(deployment_of(server.data_dir), None) as changed:
                while len({document["Image"] for document in await inspected(server)}) < 2:
                    await changed()
        assert (await api.run("print(open('/note').read())", pre_commands=commands))["stdout"] == "here\n\n"


BUSY = "import os; os.fork() or exec('while True: pass')"
"""In a `.pth` file, every start of Python executes this."""


async def test_an_idle_sandbox_of_a_caller_that_is_busy_is_removed(image: str, tmp_path: Path) -> None:
    write = f"import site; open(site.getsitepackages()[0] + '/busy.pth', 'w').write({BUSY!r})"
    commands = [f"python3 -c {shlex.quote(write)}"]
    async with serving(tmp_path, image, warm_pool="2", sandbox_reuse="off") as (server, api):
        root = "print(open('/proc/self/mountinfo').readline())"  # names a directory of this container
        roots = [await api.run(root, config=SMALL, pre_commands=commands) for _ in range(3)]
        assert len({result["stdout"] for result in roots}) == 3, roots
        assert (await api.get("/ready")).document["sandbox_reuse"] == "off"
        await until_sizes(server, {2048: 1, 16: 1})
        await until_sizes(server, {2048: 2})
        assert "without a program, it used" in server.log.read_text()


@pytest.mark.full
async def test_a_removed_image_gives_its_place_in_the_pool_to_other_kinds(image: str, tmp_path: Path) -> None:
    going = f"pyexec-test-going:{secrets.token_hex(4)}"
    await anyio.run_process(["docker", "tag", image, going])
    async with serving(tmp_path, image, warm_pool="4", sandbox_reuse="off") as (server, api):
        await until_sizes(server, {2048: 4})
        for _ in range(6):
            await api.run("print('hello')", config=SMALL, docker_image=going)
        await until_sizes(server, {2048: 1, 16: 3})
        await anyio.run_process(["docker", "rmi", going])
        assert (await api.run("print('hello')", config=SMALL, docker_image=going))["stdout"] == "hello\n"
        await until_sizes(server, {2048: 4})
        assert (await api.run("print('hello')"))["stdout"] == "hello\n"


@pytest.mark.full
async def test_the_pool_is_refilled_after_many_concurrent_runs(image: str, tmp_path: Path) -> None:
    async with serving(tmp_path, image, warm_pool="2", max_concurrent="6") as (server, api):
        results = []

        async def call() -> None:
            results.append((await api.run("print('hello')", config=SMALL))["stdout"])

        async with anyio.create_task_group() as tasks:
            for number in range(12):
                tasks.start_soon(call, name=f"caller {number}")
        assert results == ["hello\n"] * 12
        await until_sizes(server, {16: 2})


async def test_a_disconnect_while_a_sandbox_starts_leaks_no_sandbox(narrow_server: Server) -> None:
    async with api_of(narrow_server.url) as api:
        await until_sizes(narrow_server, {2048: 1})
        for seconds in (0.02, 0.06, 0.1):
            with anyio.move_on_after(seconds):
                await api.run("print('hello')", config=SMALL | {"disk_mb": 17})
        assert (await api.run("print('hello')"))["stdout"] == "hello\n"
        await until_containers(deployment_of(narrow_server.data_dir), 1)


async def test_warm_memory_mb_limits_the_pool(image: str, tmp_path: Path) -> None:
    async with serving(tmp_path, image, warm_pool="4", warm_memory_mb="64") as (server, api):
        await until_sizes(server, {2048: 2})
        assert (await api.run("print('hello')"))["stdout"] == "hello\n"
        await until_sizes(server, {2048: 2})
