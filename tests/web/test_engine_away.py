"""Docker goes away and comes back: the server says so, refuses what it cannot do, and recovers by itself."""

from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from attrs import frozen

from tests.support.api import Api, api_of
from tests.support.archives import script
from tests.support.containers import deployment_of, until_containers
from tests.support.engine_proxy import EngineProxy
from tests.support.server import Server, running_server

HELLO = script("print('hello')")


@frozen
class Cut:
    server: Server
    engine: EngineProxy


@pytest.fixture
def cut(image: str, tmp_path: Path) -> Iterator[Cut]:
    """A server whose engine is up, behind a proxy."""
    engine = EngineProxy(tmp_path / "engine.sock")
    engine.start()
    try:
        host = f"unix://{engine.path}"
        with running_server(tmp_path / "data", image, docker_host=host, warm_pool="1") as server:
            yield Cut(server, engine)
    finally:
        engine.stop()


async def test_the_engine_goes_away_and_comes_back(cut: Cut) -> None:
    async with api_of(cut.server.url) as api:
        assert (await api.run("print('before')"))["stdout"] == "before\n"
        assert (await api.get("/ready")).document["status"] == "ok"
        newest = await api.newest()
        cut.engine.stop()
        await check_away(api)
        assert await api.newest() == newest
        cut.engine.start()
        assert (await api.get("/ready")).status == 200
        assert (await api.run("print('after')"))["stdout"] == "after\n"
        await until_containers(deployment_of(cut.server.data_dir), 1)


async def check_away(api: Api) -> None:
    """Healthy, not ready, and a run is refused with 503, not lost."""
    assert (await api.get("/health")).status == 200
    answer = await api.get("/ready")
    assert (answer.status, answer.document["code"], list(answer.document["reasons"])) == (
        503,
        "unavailable",
        ["docker"],
    )
    assert "Docker" in answer.document["error"]
    answer = await api.sync(HELLO)
    assert (answer.status, answer.document["code"]) == (503, "unavailable")
    assert "Docker" in answer.document["error"]


async def test_a_run_goes_on_while_its_engine_is_away(cut: Cut) -> None:
    """Its output is there once each, also what it printed meanwhile; what was to start meanwhile starts later."""
    source = "import time\nfor n in range(4):\n    print(n, flush=True)\n    time.sleep(1)"
    async with api_of(cut.server.url) as api:
        execution_id = await api.accepted(source)
        await api.until_printed(execution_id, b"1\n")
        cut.engine.stop()
        waiting = await api.accepted("print('later')")
        await check_away(api)
        cut.engine.start()
        result = await api.ended(execution_id)
        assert (result["status"], result["stdout"]) == ("completed", "0\n1\n2\n3\n")
        assert (await api.ended(waiting))["stdout"] == "later\n"
        await until_containers(deployment_of(cut.server.data_dir), 1)


async def test_a_kill_reaches_a_run_once_its_engine_is_back(cut: Cut) -> None:
    async with api_of(cut.server.url) as api:
        execution_id = await api.accepted("import time\nprint('on', flush=True)\ntime.sleep(3600)")
        await api.until_printed(execution_id, b"on")
        cut.engine.stop()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(api.kill, execution_id, name="kill")
            await api.until_event(execution_id, "kill_requested")
            cut.engine.start()
        result = await api.ended(execution_id)
        assert (result["status"], result["stdout"]) == ("killed", "on\n")
        await until_containers(deployment_of(cut.server.data_dir), 1)
