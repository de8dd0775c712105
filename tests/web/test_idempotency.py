"""Test Idempotency-Key: equal requests are one execution, others are rejected, and a disconnect kills nothing."""

import secrets
import sqlite3
from contextlib import closing
from typing import Any

import aiohttp
import anyio
import pytest

from tests.support.api import Answer, Api, api_of, form, parse_events, pause
from tests.support.archives import script
from tests.support.containers import deployment_of, until_containers
from tests.support.leftovers import check_pool_full, check_works
from tests.support.server import Server
from tests.web.conftest import NARROW_POOL

HELLO = script("print('hello')")
ON = "import time\nprint('on', flush=True)\ntime.sleep({})"


def key() -> dict[str, str]:
    return {"Idempotency-Key": secrets.token_hex(8)}


async def post(
    api: Api, route: str, headers: dict[str, str], archive: bytes = HELLO, metadata: Any = None
) -> Answer:
    if route == "eval":
        return await api.eval({"code": "print('hello')", **(metadata or {})}, headers=headers)
    return await api.request(
        "POST", f"/api/v1/exec/{route}", data=form(archive, metadata or {}), headers=headers
    )


@pytest.mark.parametrize("route", ["sync", "async", "eval"])
async def test_the_same_request_is_the_same_execution(api: Api, route: str) -> None:
    headers = key()
    answers = [await post(api, route, headers) for _ in range(3)]
    assert {answer.status for answer in answers} == {202 if route == "async" else 200}
    assert len({answer.document["execution_id"] for answer in answers}) == 1
    assert (await api.ended(answers[0].document["execution_id"]))["stdout"] == "hello\n"
    if route != "async":
        assert answers[0].document == answers[1].document == answers[2].document


@pytest.mark.parametrize("route", ["sync", "async", "eval"])
async def test_other_metadata_under_the_same_key_is_refused(api: Api, route: str) -> None:
    headers = key()
    first = await post(api, route, headers)
    newest = await api.newest()
    answer = await post(api, route, headers, metadata={"script_args": ["more"]})
    assert (answer.status, answer.document["code"]) == (409, "idempotency_key_reused")
    assert first.document["execution_id"] in answer.document["error"]
    assert await api.newest() == newest


@pytest.mark.parametrize("route", ["sync", "async"])
async def test_another_archive_under_the_same_key_is_refused(api: Api, route: str) -> None:
    headers = key()
    assert (await post(api, route, headers)).status in (200, 202)
    answer = await post(api, route, headers, archive=script("print('other')"))
    assert (answer.status, answer.document["code"]) == (409, "idempotency_key_reused")


@pytest.mark.parametrize(
    ("first", "second"), [("sync", "async"), ("async", "sync"), ("sync", "eval"), ("eval", "async")]
)
async def test_another_route_under_the_same_key_is_refused(api: Api, first: str, second: str) -> None:
    headers = key()
    assert (await post(api, first, headers)).status in (200, 202)
    assert (await post(api, second, headers)).status == 409


async def test_the_order_of_parts_and_fields_does_not_matter(api: Api) -> None:
    headers = key()
    bodies = [
        form(HELLO, '{"stdin": "x", "script_args": ["y"]}'),
        form(HELLO, '{"script_args":["y"],"stdin":"x"}', order=("tar", "metadata"), metadata_as_file=True),
    ]
    answers = [await api.request("POST", "/api/v1/exec/async", data=body, headers=headers) for body in bodies]
    assert answers[0].status == answers[1].status == 202
    assert answers[0].document == answers[1].document


@pytest.mark.claims
@pytest.mark.parametrize("route", ["sync", "async", "eval"])
async def test_concurrent_requests_with_the_same_key_are_one_execution(api: Api, route: str) -> None:
    headers, answers = key(), []

    async def once() -> None:
        answers.append(await post(api, route, headers))

    async with anyio.create_task_group() as tasks:
        for n in range(8):
            tasks.start_soon(once, name=f"post {n}")
    assert {answer.status for answer in answers} == {202 if route == "async" else 200}
    assert len({answer.document["execution_id"] for answer in answers}) == 1


async def test_a_run_that_failed_at_once_keeps_its_key(api: Api) -> None:
    headers, metadata = key(), {"docker_image": "pyexec-no-such-image:1"}
    answers = [await api.sync(HELLO, metadata, headers=headers) for _ in range(2)]
    assert answers[0].document["error_type"] == "image_unavailable"
    assert answers[0].document == answers[1].document


async def test_a_refused_request_does_not_use_up_its_key(api: Api) -> None:
    headers = key()
    for request in (api.sync(HELLO[:700], headers=headers), api.submit(HELLO[:700], headers=headers)):
        assert (await request).status == 400
    assert (await api.sync(HELLO, headers=headers)).document["stdout"] == "hello\n"


async def disconnect_while_running(api: Api, source: str, headers: dict[str, str], *, stream: bool) -> str:
    """Post to sync, and disconnect after the program has printed; return the id of the execution."""
    accept = {"Accept": "text/event-stream"} if stream else {}
    newest = await api.newest()
    async with aiohttp.ClientSession(api.url) as own, anyio.create_task_group() as tasks:

        async def post_and_wait() -> None:
            async with own.post(
                "/api/v1/exec/sync", data=form(script(source)), headers=headers | accept
            ) as response:
                async for _ in parse_events(response):
                    pass

        tasks.start_soon(post_and_wait, name="sync")
        execution_id = newest
        while execution_id == newest:
            await pause()
            execution_id = await api.newest()
        assert execution_id is not None
        await api.until_printed(execution_id, b"on")
        tasks.cancel_scope.cancel()
    return execution_id


@pytest.mark.claims
@pytest.mark.parametrize("stream", [False, True])
async def test_a_disconnect_of_a_sync_caller_kills_its_run(api: Api, stream: bool) -> None:
    execution_id = await disconnect_while_running(api, ON.format(3600), {}, stream=stream)
    result = await api.ended(execution_id)
    assert (result["status"], result["stdout"]) == ("killed", "on\n")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_run_with_a_key_continues_after_a_disconnect(api: Api, stream: bool) -> None:
    headers, source = key(), ON.format(1) + "\nprint('done')"
    execution_id = await disconnect_while_running(api, source, headers, stream=stream)
    again = await api.sync(script(source), headers=headers)
    assert (again.document["execution_id"], again.document["status"]) == (execution_id, "completed")
    assert again.document["stdout"] == "on\ndone\n"


async def disconnect_during_the_first_append(api: Api, server: Server) -> str | None:
    """Block the first append until the client has disconnected; return the id, or None without an append."""
    await until_containers(deployment_of(server.data_dir), NARROW_POOL)
    before = await api.newest()
    with closing(sqlite3.connect(server.data_dir / "log.sqlite3", isolation_level=None)) as held:
        held.execute("BEGIN IMMEDIATE")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(api.sync, script(ON.format(3600)), name="sync")
            await until_containers(
                deployment_of(server.data_dir), NARROW_POOL + 1
            )  # one sandbox is in use, and the pool has started another
            tasks.cancel_scope.cancel()
        assert (await api.get("/health")).status == 200
        held.execute("ROLLBACK")
    newest = await api.newest()
    return None if newest == before else newest


@pytest.mark.claims
async def test_a_disconnect_during_the_first_append_leaves_no_open_execution(
    narrow: Api, narrow_server: Server
) -> None:
    for _ in range(10):
        if (execution_id := await disconnect_during_the_first_append(narrow, narrow_server)) is not None:
            break
    else:
        pytest.fail("no caller left in the middle of a write")
    with anyio.fail_after(30):
        assert (await narrow.ended(execution_id))["status"] == "killed"
    await check_works(narrow)
    await check_pool_full(narrow_server, narrow, NARROW_POOL)


@pytest.mark.claims
async def test_a_disconnect_at_any_time_leaves_no_open_execution(api: Api) -> None:
    """Callers disconnect at different moments of a run's start. Every accepted execution ends, and the server
    continues."""
    for milliseconds in range(0, 60, 4):
        with anyio.move_on_after(milliseconds / 1000):
            async with api_of(api.url) as own:
                await own.sync(script(ON.format(3600)))
    listed = (await api.get("/api/v1/executions?limit=60")).document["executions"]
    for run in listed:
        assert (await api.ended(run["execution_id"]))["status"] in ("killed", "completed", "failed")
    assert (await api.run("print('hello')"))["stdout"] == "hello\n"
