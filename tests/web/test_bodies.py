"""Test bodies that are refused or stall, and the spool of early archives, with a server in this process."""

import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import anyio
import pytest

from tests.support.api import form
from tests.support.archives import script
from tests.web.in_process import MEBIBYTE, Recorded, Web, ended, running_web


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Web]:
    async with running_web(tmp_path) as web:
        yield web


async def test_a_client_that_is_refused_early_can_read_the_response(tmp_path: Path) -> None:
    """The client reads only after it has sent everything, which takes longer than aiohttp waits."""

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


async def test_a_refused_client_that_sends_endlessly_is_disconnected(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    """An open spool file would occupy disk space as long as the program runs."""

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
        body = form(bytes(10240), {}, order=("tar", "metadata"))
        async with http.post("/api/v1/exec/sync", data=body) as response:
            assert response.status == 200
    assert (submissions.held, len(submissions.spooled)) == (set(), 1)


async def test_an_upload_that_does_not_fit_on_the_disk_is_a_503(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @asynccontextmanager
    async def full_disk(**_: object) -> AsyncIterator[anyio.AsyncFile[bytes]]:
        async with await anyio.open_file("/dev/full", "r+b", buffering=0) as file:
            yield file

    monkeypatch.setattr(anyio, "TemporaryFile", full_disk)
    body = form(script("1"), {}, order=("tar", "metadata"))
    async with (
        running_web(tmp_path, Recorded()) as web,
        aiohttp.ClientSession(web.url) as http,
        http.post("/api/v1/exec/sync", data=body) as answer,
    ):
        assert (answer.status, (await answer.json())["code"]) == (503, "unavailable")
