"""Test for leaks: after many runs of every kind, no container, thread or descriptor remains."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from tests.support.api import Api, api_of, pause
from tests.support.archives import script
from tests.support.leftovers import check_pool_full, descriptors, remains
from tests.support.server import Server, running_server

pytestmark = pytest.mark.independent

AT_ONCE = 6
POOL = 4
HELLO = script("print('hello')")
WARM_UP = 30


@pytest.fixture
def own(image: str, tmp_path: Path) -> Iterator[Server]:
    settings = {"warm_pool": str(POOL), "max_concurrent": "4", "cleanup_ttl": "86400"}
    with running_server(tmp_path / "data", image, **settings) as server:
        yield server
        log = server.log.read_text()
        assert "Traceback" not in log, log
        assert "left behind" not in log, log


async def one_run(api: Api, number: int) -> None:
    """Run one execution or send one bad request; `number` selects the kind."""
    kind = number % 10
    if kind < 4:
        assert (await api.run("print('hello')"))["stdout"] == "hello\n"
    elif kind < 6:
        assert (await api.eval({"code": "1 + 1", "eval_last_expr": True})).document["result"] == "2"
    elif kind == 6:
        assert (await api.ended(await api.accepted("print('hello')")))["stdout"] == "hello\n"
    elif kind == 7:
        assert (await api.sync(HELLO[:700])).status == 400
    elif kind == 8:
        execution_id = await api.accepted("import time; time.sleep(3600)")
        assert (await api.kill(execution_id)).document == {"status": "killed"}
    else:
        with anyio.move_on_after(0.05):
            await api.sync(script("import time; time.sleep(1)"))


async def many_runs(url: str, count: int) -> None:
    """Make `count` runs, a few at once, and close all connections."""
    numbers = iter(range(count))

    async def client() -> None:
        async with api_of(url) as api:
            for number in numbers:
                await one_run(api, number)

    async with anyio.create_task_group() as tasks:
        for n in range(AT_ONCE):
            tasks.start_soon(client, name=f"client {n}")


def kinds(server: Server) -> Counter[str]:
    """Count the open descriptors by kind."""
    return Counter(str(link).partition(":")[0] for link in descriptors(server))


def threads(server: Server) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/task").iterdir()))


async def pool_is_full(server: Server) -> None:
    async with api_of(server.url) as api:
        await check_pool_full(server, api, POOL)


async def check_no_leak(server: Server, count: int) -> None:
    """Check that runs leak nothing. Connections and threads that are kept for reuse may remain, at most one for each
    concurrent client. With 100 runs, a leak in every eighth run is detected."""
    await many_runs(server.url, WARM_UP)
    await pool_is_full(server)
    before, threads_before = kinds(server), threads(server)
    await many_runs(server.url, count)
    await pool_is_full(server)
    after = kinds(server)
    spare = 2 * AT_ONCE
    assert (after - before).total() <= spare, after - before
    assert threads(server) <= threads_before + spare
    async with api_of(server.url) as api:
        for status in ("pending", "running"):
            assert (await api.get(f"/api/v1/executions?status={status}")).document["executions"] == []
        assert all(path.name.endswith("payload") for path in (await remains(server, api)).files)
        assert (await api.run("print('hello')"))["stdout"] == "hello\n"


async def test_100_runs_leave_nothing(own: Server) -> None:
    await check_no_leak(own, 100)


@pytest.mark.soak
async def test_10_000_runs_leave_nothing(own: Server) -> None:
    await check_no_leak(own, 10_000)


async def test_files_and_executions_are_deleted_after_their_retention(image: str, tmp_path: Path) -> None:
    with running_server(tmp_path / "data", image, warm_pool="1", cleanup_ttl="0.5") as server:
        async with api_of(server.url) as api:
            execution_id = await api.accepted(f"print('x' * {100 * 1024})")
            assert len((await api.ended(execution_id))["stdout"]) > 100 * 1024
            with anyio.fail_after(60):
                await until_gone(api, execution_id)
            assert (await remains(server, api)).files == frozenset()
            assert await api.newest() is None


async def until_gone(api: Api, execution_id: str) -> None:
    """Poll until the execution has been deleted."""
    while (await api.get(f"/api/v1/executions/{execution_id}")).status != 404:
        await pause()
