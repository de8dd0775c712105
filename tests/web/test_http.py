"""Test HTTP semantics with a server in this process: broken transfers, negotiation, HEAD, paths, headers."""

import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import anyio
import pytest

from pyexec.domain.events import Finished, Output
from pyexec.services.output_store import output_blob
from tests.events import START, claimed, new_id, nonce, running, submitted
from tests.web.in_process import MEBIBYTE, SIZE, Recorded, Web, active, ended, get, running_web


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Web]:
    async with running_web(tmp_path) as web:
        yield web


@pytest.mark.parametrize("path", ["files/big.bin", "files"])
async def test_a_download_that_fails_is_a_broken_transfer(web: Web, path: str) -> None:
    execution = await ended(web)
    web.blobs.breaks_after = MEBIBYTE
    async with (
        aiohttp.ClientSession(web.url) as http,
        http.get(f"/api/v1/executions/{execution}/{path}") as response,
    ):
        assert response.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()
    received = await web.exchange(get(f"/api/v1/executions/{execution}/{path}"))
    assert b"HTTP/1.1 503" not in received
    assert len(received) < SIZE


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("path", ["logs?follow=1", "events"])
async def test_a_stream_that_fails_is_a_broken_transfer(web: Web, path: str, version: str) -> None:
    run = await active(web)

    async def fail() -> None:
        """Remove the run from the replica, and make reads of its output fail."""
        await anyio.sleep(0.3)
        finished = Finished(at=START, nonce=nonce(), exit_code=0, output=Output(blob=output_blob(run.id)))
        await web.log.append(run.id, 3, [finished])
        web.blobs.stored[output_blob(run.id)], web.blobs.breaks_after = b"x", 0
        web.active_runs.remove(run)
        run.detach()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fail, name="fail")
        request = get(f"/api/v1/executions/{run.id}/{path}", version=version)
        if version == "1.0":  # the end of the connection is the end of the body, so it must be a reset
            with pytest.raises(ConnectionResetError):
                await web.exchange(request)
        else:
            received = await web.exchange(request)
            assert b"Transfer-Encoding: chunked" in received
            assert not received.endswith(b"0\r\n\r\n")
            assert b"503" not in received


async def test_output_that_cannot_be_reached_is_not_reported_as_empty(web: Web) -> None:
    """The program runs on another replica, which does not answer."""
    execution = new_id()
    await web.log.append(execution, 0, [submitted(), claimed(), running()])
    async with aiohttp.ClientSession(web.url) as http:
        async with http.get(f"/api/v1/executions/{execution}/logs") as response:
            assert (response.status, (await response.json())["code"]) == (503, "unavailable")
        async with http.get(f"/api/v1/executions/{execution}/events?follow=0") as response:
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()
        async with http.get(f"/api/v1/executions/{execution}") as response:
            assert (response.status, (await response.json())["status"]) == (200, "running")


async def test_no_browser_guesses_the_type_of_a_response(web: Web) -> None:
    execution, run = await ended(web), await active(web)
    paths = ["/health", "/metrics", "/docs", "/api/v1/executions", "/api/v1/executions/exe_unknown"]
    paths += [f"/api/v1/executions/{execution}{rest}" for rest in ("", "/logs", "/events", "/files")]
    paths += [f"/api/v1/executions/{execution}/files/big.bin"]
    paths += [f"/api/v1/executions/{run.id}/logs?follow=1"]
    async with aiohttp.ClientSession(web.url) as http:
        for path in paths:
            async with http.get(path) as response:
                assert (path, response.headers.get("X-Content-Type-Options")) == (path, "nosniff")
                assert "default-src 'none'" in response.headers["Content-Security-Policy"], path
                assert response.headers.getall("Server") == ["python-executor"], path


PREFERENCES = {
    "text/event-stream": True,
    "TEXT/EVENT-STREAM": True,
    "text/event-stream, */*": True,
    "text/event-stream, application/json;q=0.9": True,
    "application/json;q=0.5, text/*": True,
    "application/json, text/event-stream": False,
    "text/event-stream;q=0.5, application/json": False,
    "text/event-stream; q=0, */*": False,
    "text/event-stream;q=0": False,
    "*/*": False,
    "text/html": False,
    "": False,
}


@pytest.mark.parametrize(
    ("accepted", "is_compressed"),
    [
        ("gzip", True),
        ("br, GZIP;q=0.5", True),
        ("*", True),
        ("gzip;q=0", False),
        ("*;q=0", False),
        ("br", False),
    ],
)
async def test_pages_are_compressed_only_if_the_client_accepts_that(
    tmp_path: Path, accepted: str, *, is_compressed: bool
) -> None:
    async with (
        running_web(tmp_path) as web,
        aiohttp.ClientSession(web.url, auto_decompress=False) as http,
        http.get("/docs/api.md", headers={"Accept-Encoding": accepted}) as response,
    ):
        assert (await response.read()).startswith(b"\x1f\x8b") is is_compressed
        assert ("Content-Encoding" in response.headers) is is_compressed


@pytest.mark.parametrize("accept", PREFERENCES)
async def test_json_is_the_answer_unless_events_are_preferred(tmp_path: Path, accept: str) -> None:
    submissions = Recorded()
    async with running_web(tmp_path, submissions) as web, aiohttp.ClientSession(web.url) as http:
        submissions.execution = await ended(web)
        async with http.post("/api/v1/eval", json={"code": "1"}, headers={"Accept": accept}) as response:
            expected = "text/event-stream" if PREFERENCES[accept] else "application/json"
            assert (response.status, response.content_type) == (200, expected)


async def test_head_is_answered_wherever_get_is(web: Web) -> None:
    execution = await ended(web)
    run = await active(web)
    paths = ["/health", "/ready", "/metrics", "/docs", "/openapi.json", "/api/v1/executions"]
    paths += [f"/api/v1/executions/{execution}{rest}" for rest in ("", "/", "/logs", "/events", "/files")]
    paths += [f"/api/v1/executions/{execution}/files/big.bin"]
    paths += [f"/api/v1/executions/{run.id}/logs?follow=1", f"/api/v1/executions/{run.id}/events"]
    async with aiohttp.ClientSession(web.url, timeout=aiohttp.ClientTimeout(10)) as http:
        for path in paths:
            async with http.head(path) as response:
                assert (path, response.status, await response.read()) == (path, 200, b"")
        async with http.head(f"/api/v1/executions/{execution}/files/big.bin") as response:
            assert response.headers["Content-Length"] == str(SIZE)
        async with http.head("/api/v1/executions/exe_unknown") as response:
            assert response.status == 404
    for path in (f"/api/v1/executions/{run.id}/events", f"/api/v1/executions/{run.id}/logs?follow=1"):
        raw = await web.exchange(get(path, method="HEAD"))
        assert raw.endswith(b"\r\n\r\n")
        assert raw.count(b"\r\n\r\n") == 1


@pytest.mark.parametrize("path", ["//health", "/health//", "//api/v1/executions", "/api//v1///executions/"])
async def test_repeated_slashes_count_as_one(web: Web, path: str) -> None:
    received = await web.exchange(get(f"{path}?limit=1"))
    assert received.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "path", ["/console/app.js", "/docs/start.js", "/docs/api.md", "/openapi.json", "/docs"]
)
async def test_a_page_or_file_is_the_same_with_a_slash_at_the_end(web: Web, path: str) -> None:
    async with aiohttp.ClientSession(web.url) as http:
        for method in ("GET", "HEAD"):
            async with http.request(method, path) as page, http.request(method, f"{path}/") as same:
                assert page.status == 200
                assert (same.status, same.content_type) == (200, page.content_type)
                assert path == "/docs" or await same.read() == await page.read()


async def test_a_content_encoding_that_is_not_utf8_is_a_415(web: Web) -> None:
    request = b"POST /api/v1/eval HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: 2\r\n"
    received = await web.exchange(iter([request, b"Content-Encoding: \xff\r\n\r\n{}"]))
    assert received.startswith(b"HTTP/1.1 415")
    assert rb"Content-Encoding \\udcff is not supported" in received


async def test_a_body_arrives_at_a_path_with_two_slashes(tmp_path: Path) -> None:
    submissions = Recorded()
    async with running_web(tmp_path, submissions) as web, aiohttp.ClientSession() as http:
        submissions.execution = await ended(web)
        async with http.post(f"{web.url}//api/v1/eval", json={"code": "1"}) as response:
            assert (await response.json())["stdout"] == "hello\n"


async def test_repeated_slashes_do_not_bypass_the_token(tmp_path: Path) -> None:
    async with running_web(tmp_path, api_tokens="a-long-enough-token") as web:
        assert (await web.exchange(get("//health"))).startswith(b"HTTP/1.1 200")
        for path, status in (("//api/v1/executions", b"401"), ("//docs//..//api/v1/executions", b"404")):
            assert (await web.exchange(get(path))).startswith(b"HTTP/1.1 " + status)


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (
            b"GET /health HTTP/1.1\r\nHost: test\r\nX: " + b"x" * 9000 + b"\r\n\r\n",
            431,
            "request_header_fields_too_large",
        ),
        (
            b"GET /health HTTP/1.1\r\nHost: test\r\n" + b"X: y\r\n" * 500 + b"\r\n",
            431,
            "request_header_fields_too_large",
        ),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: test\r\n\r\n", 431, "request_header_fields_too_large"),
        (b"GET /health HTTP/1.1\r\nno header\r\n\r\n", 400, "bad_request"),
        (
            b"POST /api/v1/eval HTTP/1.1\r\nHost: test\r\nExpect: more\r\nContent-Length: 2\r\n\r\n{}",
            417,
            "expectation_failed",
        ),
    ],
)
async def test_a_malformed_head_is_refused_in_json(
    web: Web, caplog: pytest.LogCaptureFixture, request_bytes: bytes, status: int, code: str
) -> None:
    with caplog.at_level(logging.DEBUG):
        received = await web.exchange(iter([request_bytes]))
    head, _, body = received.partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status
    assert b"application/json" in head
    for header in (
        b"Server: python-executor",
        b"X-Content-Type-Options: nosniff",
        b"Content-Security-Policy: ",
    ):
        assert b"\r\n" + header in head
    assert json.loads(body)["code"] == code
    assert len(body) < 500
    assert not [record for record in caplog.records if record.exc_info]


async def test_resuming_after_the_last_event_is_a_204(web: Web) -> None:
    execution, run = await ended(web), await active(web)
    async with aiohttp.ClientSession(web.url) as http:
        events = f"/api/v1/executions/{execution}/events"
        async with http.get(events) as response:
            text = await response.text()
        last = text.rpartition("id: ")[2].partition("\n")[0]
        for position, status in ((last, 204), ("99.0", 204), ("3.6", 200), ("0.0", 200)):
            async with http.get(events, headers={"Last-Event-ID": position}) as response:
                assert (position, response.status) == (position, status)
        headers = {"Last-Event-ID": "3.6"}
        async with http.get(f"/api/v1/executions/{run.id}/events", headers=headers) as response:
            assert response.status == 200
