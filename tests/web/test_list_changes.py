"""Test that a client can follow the list of executions, and that a client that waits reads nothing from the log."""

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import anyio
import pytest
from attrs import evolve

from pyexec.domain.events import Killed
from tests.events import SPEC, START, new_id, nonce, submitted
from tests.web.in_process import Web, active, ended, running_web

PATH = "/api/v1/executions"


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Web]:
    async with running_web(tmp_path) as web:
        yield web


@pytest.fixture
async def http(web: Web) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(web.url) as http:
        yield http


async def test_an_unchanged_list_is_304(web: Web, http: aiohttp.ClientSession) -> None:
    await ended(web)
    async with http.get(PATH) as first:
        tag = first.headers["ETag"]
    async with http.get(PATH, headers={"If-None-Match": tag}) as again:
        assert (again.status, again.headers["ETag"], await again.read()) == (304, tag, b"")


async def test_a_change_ends_the_wait(web: Web, http: aiohttp.ClientSession) -> None:
    run = await active(web)
    async with http.get(PATH) as first:
        tag = first.headers["ETag"]
    statuses = []

    async def wait() -> None:
        async with http.get(PATH, params={"wait": "60"}, headers={"If-None-Match": tag}) as changed:
            statuses.extend(e["status"] for e in (await changed.json())["executions"])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await web.log.append(run.id, len(run.events), [Killed(at=START, nonce=nonce())])
    assert statuses == ["killed"]


async def test_the_cells_of_a_session_are_listed_alone(web: Web, http: aiohttp.ClientSession) -> None:
    cell, session = new_id(), "ses_" + 32 * "1"
    await web.log.append(cell, 0, [evolve(submitted(), spec=evolve(SPEC, session_id=session))])
    await ended(web)
    async with http.get(PATH, params={"session_id": session}) as cells:
        assert [each["execution_id"] for each in (await cells.json())["executions"]] == [cell]
    async with http.get(PATH, params={"session_id": "ses_" + 32 * "2"}) as none:
        assert (await none.json()) == {"executions": [], "next_cursor": None}


async def test_without_a_change_the_log_is_not_read(
    web: Web, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ended(web)
    async with http.get(PATH) as first:
        tag = first.headers["ETag"]

    async def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the log was read")

    monkeypatch.setattr(web.log, "list_executions", refuse)
    monkeypatch.setattr(web.log, "read", refuse)
    async with http.get(PATH, params={"wait": "0.01"}, headers={"If-None-Match": tag}) as waited:
        assert waited.status == 304


async def test_an_ended_execution_is_read_once(
    web: Web, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution = await ended(web)
    reads = []
    read = web.log.read

    async def count(execution_id: str, after: int = 0) -> object:
        reads.append(execution_id)
        return await read(execution_id, after)

    monkeypatch.setattr(web.log, "read", count)
    for _ in range(2):
        async with http.get(PATH) as listed:
            assert [e["execution_id"] for e in (await listed.json())["executions"]] == [execution]
    assert reads == [execution]


@pytest.mark.parametrize("tag", ["*", '"x"', 'W/"1"', 'W/"1", W/"2"', 'W/"-1"', "nonsense"])
async def test_any_other_tag_gets_the_list(web: Web, http: aiohttp.ClientSession, tag: str) -> None:
    async with http.get(PATH, params={"wait": "60"}, headers={"If-None-Match": tag}) as answer:
        assert (answer.status, await answer.json()) == (200, {"executions": [], "next_cursor": None})
