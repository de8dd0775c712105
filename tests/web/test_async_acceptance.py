"""Test how an asynchronous run is accepted: at once in an idle sandbox, or through the blob store. The caller cannot
see a difference."""

import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.support.api import Api, api_of
from tests.support.archives import tar_of
from tests.support.containers import deployment_of, until_containers
from tests.support.metrics import figures, until_figures
from tests.support.server import Server, running_server

NARROW = {"memory_mb": 64, "disk_mb": 16}
SMALL, LARGE = 100, 200 * 1024
"""Sizes in bytes of an extra file: the archive is read ahead with the first, and not with the second."""
SLEEP = "import time\nprint('up', flush=True)\ntime.sleep(60)"
TAKES = "pyexec_pool_takes_total"
ALL = ["submitted", "claimed", "running", "finished"]


@pytest.fixture(scope="module")
def claiming(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run a server that claims its own executions, with one slot and one idle sandbox."""
    settings = {"local_claim": "on", "max_concurrent": "1", "warm_pool": "1", "queue_timeout": "60"}
    with running_server(tmp_path_factory.mktemp("claiming") / "data", image, **settings) as server:
        yield server
        assert "Traceback" not in server.log.read_text()


@pytest.fixture
async def api(claiming: Server) -> AsyncIterator[Api]:
    async with api_of(claiming.url) as client:
        await until_figures(claiming.url, lambda now: now("pyexec_pool_waiting") == 1)
        yield client


async def test_a_blob_store_that_does_not_answer_is_a_503_within_some_seconds(
    image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request for a small archive takes at most 10 s. Deleting what was not stored would take as long again."""
    with socket.create_server(("127.0.0.1", 0)) as stalled:
        monkeypatch.setenv("AWS_ENDPOINT", f"http://127.0.0.1:{stalled.getsockname()[1]}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
            monkeypatch.setenv(name, "any")
        settings = {"blob_url": "s3://bucket/of/tests", "warm_pool": "0"}
        with running_server(tmp_path / "data", image, **settings) as server:
            async with api_of(server.url) as client:
                with anyio.fail_after(18):
                    answer = await client.submit(tar_of({"main.py": "print()"}), {})
                assert (answer.status, answer.document["code"]) == (503, "unavailable")
                assert "the blob store at s3://bucket/of/tests failed" in answer.document["error"]


async def steps(api: Api) -> float:
    """Return the number of appends to the event log so far."""
    return (await figures(api.url))("pyexec_event_log_seconds_count", operation="append")


async def kinds(api: Api, execution_id: str) -> list[str]:
    return [event.name for event in await api.all_events(execution_id) if event.name != "output"]


async def run(api: Api, extra: int, **metadata: Any) -> tuple[Any, float]:
    """Run a script with an extra file of `extra` bytes; return the result and the number of appends."""
    before = await steps(api)
    archive = tar_of({"main.py": "print('hello')", "extra": bytes(extra)})
    answer = await api.submit(archive, metadata)
    assert answer.status == 202, answer.document
    result = await api.ended(answer.document["execution_id"])
    assert (result["status"], result["stdout"]) == ("completed", "hello\n")
    assert await kinds(api, result["execution_id"]) == ALL
    return result, await steps(api) - before


async def test_a_small_archive_starts_with_the_append_that_accepts_it(api: Api) -> None:
    _, written = await run(api, SMALL)
    assert written == 2


@pytest.mark.parametrize(
    ("extra", "metadata"),
    [(LARGE, {}), (SMALL, {"config": NARROW})],
    ids=["a large archive", "no idle sandbox of this kind"],
)
async def test_other_archives_are_accepted_and_claimed_in_one_append(
    api: Api, extra: int, metadata: Any
) -> None:
    _, written = await run(api, extra, **metadata)
    assert written == 3


async def test_the_archive_is_durable_before_the_execution_is_accepted(api: Api, claiming: Server) -> None:
    """The blob store has the archive as it was sent, even if the program starts at once."""
    archive = tar_of({"main.py": SLEEP})
    answer = await api.submit(archive)
    execution_id = answer.document["execution_id"]
    assert (claiming.data_dir / "blobs" / f"{execution_id}+payload").read_bytes() == archive
    await api.kill(execution_id)
    assert (await api.ended(execution_id))["status"] == "killed"


async def test_without_a_free_slot_the_execution_is_queued(api: Api) -> None:
    first = await api.accepted(SLEEP)
    await api.until_event(first, "running")
    second = await api.accepted("print('second')")
    assert (await api.get(f"/api/v1/executions/{second}")).document["status"] == "pending"
    await api.kill(first)
    assert (await api.ended(second))["stdout"] == "second\n"


async def test_a_refused_archive_uses_no_sandbox(api: Api, claiming: Server) -> None:
    """The server takes neither a slot nor a sandbox before it has checked the archive."""
    before, newest, stored = await figures(api.url), await api.newest(), blobs(claiming)
    answer = await api.submit(tar_of({"notes.txt": "nothing to run"}))
    assert (answer.status, answer.document["code"]) == (400, "invalid_request")
    assert not (await figures(api.url)).since(before, "pyexec_pool_takes")
    assert (await api.newest(), blobs(claiming)) == (newest, stored)


async def test_if_the_sandbox_breaks_the_execution_runs_in_another_one(api: Api, claiming: Server) -> None:
    """The sandbox is suspended while it receives the archive, and is then killed. The caller notices nothing."""
    (container,) = await until_containers(deployment_of(claiming.data_dir), 1)
    before = (await figures(api.url))(TAKES, result="hit")
    await docker("pause", container)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run, api, SMALL, name="run")
        await until_figures(api.url, lambda now: now(TAKES, result="hit") > before)
        await docker("kill", container)
    assert "cannot start at once" in claiming.log.read_text()


async def docker(*arguments: str) -> None:
    await anyio.run_process(["docker", *arguments])


def blobs(server: Server) -> set[str]:
    return {path.name for path in (server.data_dir / "blobs").iterdir()}
