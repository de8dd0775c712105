"""Test the queue for slots: bounded, first come first served, with a timeout."""

import subprocess
from collections.abc import Iterator

import anyio
import pytest

from pyexec.settings import Settings
from pyexec.wiring.memory import memory_budget_mb
from tests.support.api import Api, api_of
from tests.support.archives import script
from tests.support.metrics import until_figures
from tests.support.server import Server, running_server

pytestmark = pytest.mark.claims

FOREVER = "import time\nprint('on', flush=True)\ntime.sleep(3600)"
HELLO = script("print('hello')")


@pytest.fixture(scope="module")
def short(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run a server with one slot, one place in the queue, and ceilings above what the engine has."""
    total_mb = engine_memory_mb()
    settings = {"max_concurrent": "1", "max_queued": "1", "warm_pool": "1", "queue_timeout": "2"}
    settings |= {
        "max_memory_mb": str(2 * total_mb),
        "max_disk_mb": str(2 * total_mb),
        "default_disk_mb": "16",
    }
    with running_server(tmp_path_factory.mktemp("short") / "data", image, **settings) as server:
        yield server


async def test_a_full_queue_is_a_429_with_retry_after(short: Server) -> None:
    async with api_of(short.url) as api:
        running = await api.accepted(FOREVER)
        await api.until_printed(running, b"on")
        waiting = await api.accepted(FOREVER)
        newest = await api.newest()
        for request in (api.sync(HELLO), api.submit(HELLO), api.eval({"code": "1"})):
            answer = await request
            assert (answer.status, answer.document["code"]) == (429, "queue_full")
            assert int(answer.headers["Retry-After"]) >= 1
            assert (
                "all slots (1) are busy and the queue is full (PYEXEC_MAX_QUEUED: 1)"
                in answer.document["error"]
            )
        assert await api.newest() == newest == waiting
        for execution_id in (waiting, running):
            assert (await api.kill(execution_id)).document == {"status": "killed"}
        assert (await api.run("print('free')"))["stdout"] == "free\n"


@pytest.mark.parametrize("route", ["sync", "submit"])
async def test_queue_timeout_ends_a_waiting_execution(short: Server, route: str) -> None:
    async with api_of(short.url) as api:
        running = await api.accepted(FOREVER)
        await api.until_printed(running, b"on")
        headers = {"Idempotency-Key": f"late-{route}"}
        answer = await getattr(api, route)(HELLO, headers=headers)
        result = await api.ended(answer.document["execution_id"])
        assert (result["status"], result["error_type"]) == ("failed", "queue_timeout")
        assert ("2 s" in result["error"], "exit_code" in result, "started_at" in result) == (
            True,
            False,
            False,
        )
        again = await getattr(api, route)(HELLO, headers=headers)
        assert again.document["execution_id"] == result["execution_id"]
        await api.kill(running)
        assert (await api.run("print('free')"))["stdout"] == "free\n"


async def test_executions_are_queued_if_memory_is_short(
    image: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings = {"max_concurrent": "4", "max_queued": "1", "max_total_memory_mb": "4000", "warm_pool": "1"}
    with running_server(tmp_path_factory.mktemp("memory") / "data", image, **settings) as server:
        async with api_of(server.url) as api:
            running = await api.accepted(FOREVER)
            await api.until_printed(running, b"on")
            waiting = await api.accepted("print('next')")
            # With local_claim=off, the leader assigns it first.
            await until_figures(api.url, lambda now: now("pyexec_queue_length") == 1)
            answer = await api.submit(HELLO)
            assert (answer.status, answer.document["code"]) == (429, "queue_full")
            answer = await api.sync(HELLO, {"config": {"memory_mb": 3000}})
            assert (answer.status, answer.document["field"]) == (413, "config.memory_mb")
            assert "4000 MiB" in answer.document["error"]
            await api.kill(running)
            assert (await api.ended(waiting))["stdout"] == "next\n"


async def test_queued_executions_run_in_order(narrow: Api) -> None:
    ids = [await narrow.accepted(f"import time; time.sleep(0.1); print({n})") for n in range(5)]
    results = [await narrow.ended(execution_id) for execution_id in ids]
    assert [result["stdout"] for result in results] == [f"{n}\n" for n in range(5)]
    starts = [result["started_at"] for result in results]
    assert starts == sorted(starts)


async def test_sync_and_async_share_the_queue(narrow: Api) -> None:
    outputs: list[str] = []

    async def by_sync(n: int) -> None:
        outputs.append((await narrow.run(f"print('sync', {n})"))["stdout"])

    ids = []
    async with anyio.create_task_group() as tasks:
        for n in range(5):
            tasks.start_soon(by_sync, n, name=f"sync {n}")
            ids.append(await narrow.accepted(f"print('async', {n})"))
    assert sorted(outputs) == [f"sync {n}\n" for n in range(5)]
    assert [(await narrow.ended(execution_id))["stdout"] for execution_id in ids] == [
        f"async {n}\n" for n in range(5)
    ]


def engine_memory_mb() -> int:
    asked = ["docker", "info", "--format", "{{.MemTotal}}"]
    return int(subprocess.run(asked, check=True, stdout=subprocess.PIPE, text=True).stdout) >> 20


async def test_more_memory_than_the_engine_has_is_refused(short: Server) -> None:
    """Refuse it even below the ceilings. Otherwise the kernel would kill other programs."""
    total_mb = engine_memory_mb()
    async with api_of(short.url) as api:
        answer = await api.sync(script("print(1)"), {"config": {"memory_mb": total_mb}})
        assert answer.status == 413, answer.document
        assert answer.document["field"] == "config.memory_mb"
        assert f"together may take {memory_budget_mb(Settings(), total_mb)} MiB" in answer.document["error"]
        answer = await api.sync(script("print(1)"), {"config": {"disk_mb": total_mb}})
        assert (answer.status, answer.document["field"]) == (413, "config.disk_mb"), answer.document
