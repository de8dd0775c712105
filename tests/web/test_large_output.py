"""Test that large output, and output in many small pieces, delays no other request and takes bounded memory."""

import gc
import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from attrs import define, evolve

from pyexec.adapters.single_member import NoPeers
from pyexec.codec import to_json
from pyexec.domain.event_stream import EndItem, Position
from pyexec.domain.events import Finished, Output
from pyexec.domain.execution import fold
from pyexec.domain.output_log import OutputLog, Stream
from pyexec.domain.result import result_of, result_without_output
from pyexec.errors import Unavailable
from pyexec.ports import Caller
from pyexec.services.event_log import CorruptLogReporter
from pyexec.services.executions import Executions
from pyexec.services.output_store import OutputMemory, output_blob
from pyexec.web.streaming import RESULT_AT_ONCE_BYTES, result_pieces
from tests.events import START, claimed, new_id, nonce, running, submitted
from tests.web.in_process import MEBIBYTE, Web, active, get, running_web

ALTERNATIONS = 10_000


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Web]:
    async with running_web(tmp_path) as web:
        yield web


async def stored(web: Web, output_log: OutputLog) -> str:
    """Return an ended execution with this output in the blob store."""
    execution = new_id()
    web.blobs.stored[output_blob(execution)] = output_log.encode()
    finished = Finished(at=START, nonce=nonce(), exit_code=0, output=Output(blob=output_blob(execution)))
    await web.log.append(execution, 0, [submitted(), claimed(), running(), finished])
    return execution


def alternating() -> OutputLog:
    output_log = OutputLog()
    for _ in range(ALTERNATIONS):
        output_log.append(Stream.STDOUT, b"x")
        output_log.append(Stream.STDERR, b"y")
    return output_log


def binary(size: int) -> OutputLog:
    output_log = OutputLog()
    output_log.append(Stream.STDOUT, b"\xff" * size)
    return output_log


@define
class Loop:
    """The event loop of the server: the longest time in which it ran no other task."""

    longest_stall: float = 0.0


@asynccontextmanager
async def watched_loop() -> AsyncIterator[Loop]:
    loop = Loop()

    async def tick() -> None:
        last = time.perf_counter()
        while True:
            await anyio.sleep(0.001)
            now = time.perf_counter()
            loop.longest_stall, last = max(loop.longest_stall, now - last), now

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tick, name="tick")
        yield loop
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("make", "path"),
    [(alternating, "/events"), (lambda: binary(MEBIBYTE), "/events"), (lambda: binary(MEBIBYTE), "")],
)
async def test_large_output_does_not_stall_the_event_loop(
    web: Web, make: Callable[[], OutputLog], path: str
) -> None:
    execution = await stored(web, make())
    async with watched_loop() as loop:
        started = time.perf_counter()
        received = await web.exchange(get(f"/api/v1/executions/{execution}{path}"))
        seconds = time.perf_counter() - started
    assert received.startswith(b"HTTP/1.1 200")
    assert loop.longest_stall < seconds / 2


async def test_long_lists_do_not_stall_the_event_loop(web: Web) -> None:
    finished = Finished(at=START, nonce=nonce(), exit_code=1, error="x" * 1000, output=Output())
    for _ in range(300):
        await web.log.append(new_id(), 0, [submitted(), claimed(), running(), finished])
    lengths = []

    async def read(http: aiohttp.ClientSession) -> None:
        async with http.get("/api/v1/executions?limit=300") as response:
            lengths.append(len((await response.json())["executions"]))

    async with aiohttp.ClientSession(web.url) as http:
        await read(http)
        async with watched_loop() as loop:
            started = time.perf_counter()
            async with anyio.create_task_group() as tasks:
                for _ in range(10):
                    tasks.start_soon(read, http, name="list")
            seconds = time.perf_counter() - started
    assert lengths == [300] * 11
    assert loop.longest_stall < seconds / 3


async def test_alternating_output_arrives_in_order(web: Web) -> None:
    execution = await stored(web, alternating())
    async with aiohttp.ClientSession(web.url) as http:
        async with http.get(f"/api/v1/executions/{execution}/logs") as response:
            assert await response.read() == b"xy" * ALTERNATIONS
        async with http.get(f"/api/v1/executions/{execution}/events") as response:
            text = await response.text()
    messages = [dict(line.split(": ", 1) for line in part.split("\n")) for part in text.split("\n\n")[:-1]]
    output = [message for message in messages if message["event"] == "output"]
    assert [json.loads(message["data"])["stream"] for message in output] == [
        "stdout",
        "stderr",
    ] * ALTERNATIONS
    assert [message["id"] for message in output] == [f"3.{n}" for n in range(1, 2 * ALTERNATIONS + 1)]
    assert json.loads(messages[-1]["data"])["stderr"] == "y" * ALTERNATIONS


@pytest.mark.parametrize("data", [b"\xff", b"\xf0\x9f\x98\x80\n", b"\xf0\x9f\x98", b'\x1b[31m"\\'])
async def test_a_large_result_is_the_same_document(web: Web, data: bytes) -> None:
    output_log = OutputLog()
    for stream in (Stream.STDERR, Stream.STDOUT, Stream.STDERR):
        output_log.append(stream, data * RESULT_AT_ONCE_BYTES)
    execution = await stored(web, output_log)
    state = fold(execution, await web.log.read(execution))
    # A server without tokens does not name the tenant.
    expected = json.loads(json.dumps(to_json(evolve(result_of(state, output_log), tenant=None))))
    result = evolve(result_without_output(state, output_log), tenant=None)
    pieces = list(result_pieces(result, output_log))
    assert json.loads(b"".join(pieces)) == expected
    assert max(map(len, pieces)) < 4 * RESULT_AT_ONCE_BYTES
    async with aiohttp.ClientSession(web.url) as http:
        async with http.get(f"/api/v1/executions/{execution}") as response:
            assert await response.json() == expected
        async with http.head(f"/api/v1/executions/{execution}") as response:
            assert (response.status, await response.read()) == (200, b"")


async def test_the_memory_of_loaded_outputs_is_bounded(tmp_path: Path) -> None:
    """A client that does not read its response holds the memory. Small outputs and other endpoints need none."""
    whole = 11 * MEBIBYTE
    memory = OutputMemory(output_bytes_max=10 * MEBIBYTE, bytes_max=whole, wait_seconds=0.1)
    async with running_web(tmp_path, memory=memory) as web, aiohttp.ClientSession(web.url) as http:
        execution = await stored(web, binary(8 * MEBIBYTE))
        small = await stored(web, binary(10))
        path = f"/api/v1/executions/{execution}"

        async def status(path: str) -> tuple[int, Any]:
            async with http.get(path) as response:
                return response.status, await response.read()

        with socket.create_connection(web.address) as idle:
            idle.sendall(b"".join(get(path)))
            assert await anyio.to_thread.run_sync(idle.recv, 8) == b"HTTP/1.1"
            assert [(await status(path + rest))[0] for rest in ("", "/logs")] == [503, 503]
            assert (await status("/health"))[0] == 200
        answered = await status(path)
        assert answered[0] == 200
        assert (await status(f"/api/v1/executions/{small}"))[0] == 200
        assert memory.available == whole


async def test_slow_readers_of_one_tenant_leave_memory_to_others() -> None:
    memory = OutputMemory(output_bytes_max=10, bytes_max=40, wait_seconds=0.05)
    async with memory.reserve("acme"), memory.reserve("acme"):
        with pytest.raises(Unavailable):
            async with memory.reserve("acme"):
                pass
        async with memory.reserve("beta"):
            assert memory.available == 10
    async with memory.reserve(None), memory.reserve(None), memory.reserve(None):  # without tokens
        assert memory.available == 10


async def test_a_slow_reader_of_the_largest_output_leaves_memory_for_another_tenant() -> None:
    memory = OutputMemory(output_bytes_max=100 * MEBIBYTE, wait_seconds=0.05)
    async with memory.reserve("acme"), memory.reserve("beta"):
        with pytest.raises(Unavailable):
            async with memory.reserve("acme"):
                pass


def stop_reading(address: tuple[str, int], path: str) -> None:
    """Send a request, read the beginning of the response, and disconnect."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(address)
        connection.sendall(b"".join(get(path)))
        assert connection.recv(8) == b"HTTP/1.1"


@pytest.mark.parametrize("rest", ["", "/logs", "/logs?follow=1", "/events"])
@pytest.mark.parametrize("is_active", [False, True])
async def test_a_disconnect_frees_the_output_at_once(web: Web, rest: str, is_active: bool) -> None:
    """The memory is not garbage in a cycle: a collection is rare, and does not count bytes."""
    size = 8 * MEBIBYTE

    def is_kept() -> bool:
        return any(isinstance(each, OutputLog) and len(each) >= size for each in gc.get_objects())

    if is_active:
        run = await active(web)
        run.write_output(Stream.STDOUT, bytes(size))
        execution = run.id
    else:
        execution = await stored(web, binary(size))
    gc.collect()
    gc.disable()
    try:
        await anyio.to_thread.run_sync(stop_reading, web.address, f"/api/v1/executions/{execution}{rest}")
        if is_active:
            web.active_runs.remove(run)
            del run
        for _ in range(200):
            if is_kept():
                await anyio.sleep(0.05)
        assert not is_kept()
    finally:
        gc.enable()


def executions_of(web: Web) -> Executions:
    return Executions(
        log=web.log,
        blobs=web.blobs,
        active_runs=web.active_runs,
        peers=NoPeers(),
        corrupt_logs=CorruptLogReporter(),
        memory=OutputMemory(output_bytes_max=MEBIBYTE),
    )


@pytest.mark.parametrize("ended", [False, True])
async def test_readers_take_turns_so_that_many_delay_no_other_task(web: Web, ended: bool) -> None:
    executions = executions_of(web)
    if ended:
        execution = await stored(web, alternating())
    else:
        run = await active(web)
        execution, run.output_log = run.id, alternating()
    batches, between, finished = 0, [], 0

    async def read() -> None:
        nonlocal batches, finished
        items = executions.known_items(execution, Position(), Caller(), follow=False)
        async for _ in items:
            batches += 1
        finished += 1

    async with anyio.create_task_group() as readers:
        for _ in range(5):
            readers.start_soon(read, name="read")
        while finished < 5:
            before = batches
            await anyio.lowlevel.checkpoint()
            between.append(batches - before)
    assert batches > 5 * ALTERNATIONS / 64
    assert max(between) <= 2


async def test_an_end_that_comes_while_items_are_sent_is_not_lost(web: Web) -> None:
    run = await active(web)
    executions = executions_of(web)
    batches = executions.known_items(run.id, Position(), Caller())
    await anext(batches)
    run.record([Finished(at=START, nonce=nonce(), exit_code=0, output=Output())])
    rest = [item async for batch in batches for item in batch]
    assert isinstance(rest[-1], EndItem)


async def test_single_bytes_of_a_running_program_arrive_in_few_events(web: Web) -> None:
    run = await active(web)
    written, started = 0, time.perf_counter()
    async with (
        aiohttp.ClientSession(web.url) as http,
        http.get(f"/api/v1/executions/{run.id}/events") as response,
    ):
        for _ in range(200):
            run.write_output(Stream.STDOUT, b"x")
            written += 1
            await anyio.sleep(0.001)
        seconds = time.perf_counter() - started
        run.record([Finished(at=START, nonce=nonce(), exit_code=0, output=Output())])
        text = await response.text()
    outputs = text.count("event: output")
    assert 1 <= outputs <= seconds / 0.02 + 2
    assert json.loads(text.rpartition("data: ")[2])["stdout"] == "hello\n" + "x" * written
