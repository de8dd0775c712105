"""HTTP as people expect it, in this process: broken transfers, negotiation, HEAD, paths, headers, refused bodies."""

import json
import logging
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import anyio
import pytest
from attrs import evolve

from pyexec.domain.events import Finished, Output
from pyexec.domain.output_files import OutputFile, OutputFiles
from pyexec.domain.output_log import OutputLog, Stream
from pyexec.services.active_runs import Run
from pyexec.services.output_store import files_blob, output_blob
from tests.events import SPEC, START, claimed, new_id, nonce, running, submitted
from tests.web.in_process import MEBIBYTE, Web, running_web

SIZE = 4 * MEBIBYTE


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Web]:
    async with running_web(tmp_path) as web:
        yield web


async def ended(web: Web) -> str:
    """Return an execution that has ended, with output and a file in the blob store."""
    execution = new_id()
    output = OutputLog()
    output.append(Stream.STDOUT, b"hello\n")
    web.blobs.stored[output_blob(execution)] = output.encode()
    web.blobs.stored[files_blob(execution)] = bytes(SIZE)
    finished = Finished(
        at=START,
        nonce=nonce(),
        exit_code=0,
        output=Output(blob=output_blob(execution)),
        files=OutputFiles(
            listed=(OutputFile(path="big.bin", size=SIZE),), truncated=False, blob=files_blob(execution)
        ),
    )
    first = evolve(submitted(), spec=evolve(SPEC, output_files=("*",)))
    await web.log.append(execution, 0, [first, claimed(), running(), finished])
    return execution


async def active(web: Web) -> Run:
    """Return a run of this replica that has printed something."""
    run = Run(new_id())
    run.record([submitted(), claimed(), running()])
    await web.log.append(run.id, 0, list(run.events))
    web.active_runs.add(run)
    run.write_output(Stream.STDOUT, b"hello\n")
    return run


def get(path: str, *headers: str, version: str = "1.1", method: str = "GET") -> Iterator[bytes]:
    lines = [f"{method} {path} HTTP/{version}", "Host: test", "Connection: close", *headers, "", ""]
    yield "\r\n".join(lines).encode()


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
        """Let the replica lose the run, and then the blob store with its output."""
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


class Recorded:
    """Stands for `Submissions`: every upload is the same ended execution."""

    def __init__(self) -> None:
        self.execution = ""
        self.closed = False

    async def run(self, upload) -> str:
        async for _ in upload.archive:
            pass
        return self.execution


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


async def test_a_body_arrives_at_a_path_with_two_slashes(tmp_path: Path) -> None:
    submissions = Recorded()
    async with running_web(tmp_path, submissions) as web, aiohttp.ClientSession() as http:
        submissions.execution = await ended(web)
        async with http.post(f"{web.url}//api/v1/eval", json={"code": "1"}) as response:
            assert (await response.json())["stdout"] == "hello\n"


async def test_two_slashes_do_not_lead_around_the_token(tmp_path: Path) -> None:
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
    assert json.loads(body)["code"] == code
    assert len(body) < 500
    assert not [record for record in caplog.records if record.exc_info]


async def test_the_last_event_of_an_ended_execution_is_followed_by_nothing(web: Web) -> None:
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


async def test_a_sender_that_is_refused_early_can_read_the_answer(tmp_path: Path) -> None:
    """It reads only after it has sent everything, which takes longer than aiohttp waits by itself."""

    def slowly() -> Iterator[bytes]:
        size = 24 * MEBIBYTE
        yield (
            b"POST /api/v1/eval HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
            % size
        )
        for _ in range(24):
            time.sleep(0.5)
            yield bytes(MEBIBYTE)

    async with running_web(tmp_path, api_tokens="a-long-enough-token") as web:
        assert (await web.exchange(slowly())).startswith(b"HTTP/1.1 401")


async def test_a_refused_sender_without_an_end_is_cut_off(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyexec.web.connections.DRAIN_BYTES", MEBIBYTE)

    def endless() -> Iterator[bytes]:
        yield b"POST /nowhere HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"
        while True:
            yield b"10000\r\n" + bytes(65536) + b"\r\n"

    with anyio.fail_after(20), pytest.raises(ConnectionError):
        await web.exchange(endless())


async def test_an_eval_that_stalls_is_refused(web: Web) -> None:
    stalled = (
        b'POST /api/v1/eval HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: 100\r\n\r\n{"code'
    )
    with anyio.fail_after(20):
        received = await web.exchange(iter([stalled]))
    assert received.startswith(b"HTTP/1.1 400")
    assert b"upload_stalled" in received


async def test_the_spool_of_an_archive_is_closed_before_the_run(tmp_path: Path) -> None:
    """Its disk space would be held for as long as the program runs."""

    def open_files() -> set[str]:
        descriptors = Path("/proc/self/fd").iterdir()
        return {target for fd in descriptors if str(tmp_path) in (target := os.path.realpath(fd))}

    class Watching(Recorded):
        held: set[str] | None = None

        async def run(self, upload) -> str:
            before = open_files()
            execution = await super().run(upload)
            self.held = open_files() - before
            self.spooled = before - open_files()
            return execution

    submissions = Watching()
    async with running_web(tmp_path, submissions) as web, aiohttp.ClientSession(web.url) as http:
        submissions.execution = await ended(web)
        form = aiohttp.FormData()
        form.add_field("tar", bytes(10240), filename="a.tar", content_type="application/x-tar")
        form.add_field("metadata", "{}")
        async with http.post("/api/v1/exec/sync", data=form) as response:
            assert response.status == 200
    assert (submissions.held, len(submissions.spooled)) == (set(), 1)
