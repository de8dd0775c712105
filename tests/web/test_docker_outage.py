"""Test an outage of Docker: the server reports it, rejects what it cannot do, and recovers by itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest
from attrs import frozen

from tests.support.api import Api, api_of, until_ready
from tests.support.archives import script
from tests.support.containers import containers, deployment_of, until_containers
from tests.support.engine_proxy import EngineProxy
from tests.support.server import Server, running_server

TIMEOUT_SECONDS = 2
HELLO = script("print('hello')")


@frozen
class Cut:
    server: Server
    engine: EngineProxy


@pytest.fixture(scope="module")
def cut(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cut]:
    with cut_off(image, tmp_path_factory.mktemp("cut")) as cut:
        yield cut


@contextmanager
def cut_off(image: str, folder: Path) -> Iterator[Cut]:
    """Run a server whose Docker engine is behind a proxy."""
    engine = EngineProxy(folder / "engine.sock")
    engine.start()
    try:
        host = f"unix://{engine.path}"
        settings = {
            "docker_host": host,
            "docker_timeout": str(TIMEOUT_SECONDS),
            "warm_pool": "1",
            "stop_timeout": "1",
        }
        with running_server(folder / "data", image, **settings) as server:
            yield Cut(server, engine)
    finally:
        engine.stop()


async def test_the_server_recovers_from_a_docker_outage(cut: Cut) -> None:
    async with api_of(cut.server.url) as api:
        assert (await api.run("print('before')"))["stdout"] == "before\n"
        assert (await api.get("/ready")).document["status"] == "ok"
        newest = await api.newest()
        cut.engine.stop()
        await check_unavailable(api)
        assert await api.newest() == newest
        cut.engine.start()
        assert (await api.get("/ready")).status == 200
        assert (await api.run("print('after')"))["stdout"] == "after\n"
        await until_containers(deployment_of(cut.server.data_dir), 1)


async def check_unavailable(api: Api) -> None:
    """Check that the server is healthy but not ready, and refuses a run with 503."""
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


async def test_a_run_continues_during_a_docker_outage(cut: Cut) -> None:
    """All output arrives exactly once, including output from the outage. Requests from the outage start later."""
    source = "import time\nfor n in range(4):\n    print(n, flush=True)\n    time.sleep(1)"
    async with api_of(cut.server.url) as api:
        execution_id = await api.accepted(source)
        await api.until_printed(execution_id, b"1\n")
        cut.engine.stop()
        waiting = await api.accepted("print('later')")
        await check_unavailable(api)
        cut.engine.start()
        result = await api.ended(execution_id)
        assert (result["status"], result["stdout"]) == ("completed", "0\n1\n2\n3\n")
        assert (await api.ended(waiting))["stdout"] == "later\n"
        await until_containers(deployment_of(cut.server.data_dir), 1)


async def test_a_kill_takes_effect_after_a_docker_outage(cut: Cut) -> None:
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


async def test_a_docker_that_hangs_is_unavailable(cut: Cut) -> None:
    async with api_of(cut.server.url) as api:
        newest = await api.newest()
        with cut.engine.silent():
            answer = await api.get("/ready")
            assert (answer.status, list(answer.document["reasons"])) == (503, ["docker"]), answer.document
            for _ in range(2):  # the idle sandbox cannot be used, and no other can start
                refused = await api.sync(HELLO)
                assert (refused.status, refused.document["code"]) == (503, "unavailable"), refused.document
                assert "Docker does not answer" in refused.document["error"]
            assert await api.newest() == newest
        await until_ready(api)
        assert (await api.run("print('after')"))["stdout"] == "after\n"
        await until_containers(deployment_of(cut.server.data_dir), 1)


async def test_a_program_that_ends_while_docker_hangs_has_not_timed_out(cut: Cut) -> None:
    """The deadline passes during the outage, and the server learns only afterwards that the program had ended in
    time."""
    source = "import time\nprint('on', flush=True)\ntime.sleep(1)\nprint('over')"
    async with api_of(cut.server.url) as api:
        execution_id = await api.accepted(source, config={"timeout_seconds": 3})
        await api.until_printed(execution_id, b"on\n")
        with cut.engine.silent():
            await anyio.sleep(3 + TIMEOUT_SECONDS)
        result = await api.ended(execution_id)
        assert (result["status"], result["stdout"]) == ("completed", "on\nover\n"), result
        # A start removes the containers whose removal Docker did not answer.
        await api.run("print()", config={"memory_mb": 65})
        await until_containers(deployment_of(cut.server.data_dir), 1)


async def test_a_server_stops_while_docker_hangs(image: str, tmp_path: Path) -> None:
    """The next server removes the containers that this one could not remove."""
    with cut_off(image, tmp_path) as cut:
        async with api_of(cut.server.url) as api:
            await api.until_printed(await api.accepted("print('on', flush=True)\nwhile True: pass"), b"on\n")
        data_dir = cut.server.data_dir
        await until_containers(deployment_of(data_dir), 2)  # the one that runs, and the pool's
        before = set(await containers(deployment_of(data_dir)))
        with cut.engine.silent():
            assert cut.server.stop() == 0
            left = set(
                await containers(deployment_of(data_dir))
            )  # later, the engine may get requests to remove them
    assert left  # the idle one may have ended by itself
    assert left <= before
    with running_server(data_dir, image, warm_pool="1"):
        await until_containers(deployment_of(data_dir), 1)
