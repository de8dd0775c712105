"""Test that a large upload is streamed: the server's memory does not grow with it."""

import io
import json
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import anyio
import pytest

from tests.support.api import Api, api_of, form, pause
from tests.support.archives import END, member
from tests.support.cases import sampled
from tests.support.leftovers import check_works, spooled
from tests.support.server import Server, running_server

MEBIBYTE = 1024 * 1024
GROWTH_MAX = 64 * MEBIBYTE
JSON = {"Content-Type": "application/json"}
SHOW = "import os; print(os.path.getsize('zeros'))"


async def zeros(size: int) -> AsyncIterator[bytes]:
    """Yield a tar with one file of zeros, in pieces."""
    yield member("main.py", SHOW) + member("zeros", size=size)
    piece = bytes(MEBIBYTE // 4)
    for _ in range(size // len(piece)):
        yield piece
    yield END


def resident(server: Server, name: str) -> int:
    """Return the server's memory in bytes: current (`VmRSS`) or peak (`VmHWM`)."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def forget_peak(server: Server) -> None:
    Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")


async def check_upload(server: Server, api: Api, size: int, route: str, order: tuple[str, str]) -> None:
    await check_works(api)
    before = resident(server, "VmRSS")
    forget_peak(server)
    answer = await api.request("POST", f"/api/v1/exec/{route}", data=form(zeros(size), {}, order=order))
    assert answer.status in (200, 202), answer.document
    result = await api.ended(answer.document["execution_id"])
    assert result["stdout"] == f"{size}\n", result
    assert resident(server, "VmHWM") - before < GROWTH_MAX
    assert spooled(server) == set()
    await check_works(api)


@sampled(
    ("route", "order"),
    [("sync", ("tar", "metadata")), ("sync", ("metadata", "tar")), ("async", ("metadata", "tar"))],
)
async def test_256_mib_take_constant_memory(
    server: Server, api: Api, route: str, order: tuple[str, str]
) -> None:
    await check_upload(server, api, 256 * MEBIBYTE, route, order)


@pytest.mark.full
async def test_a_gibibyte_by_sync_takes_constant_memory(server: Server, api: Api) -> None:
    await check_upload(server, api, 1024 * MEBIBYTE, "sync", ("metadata", "tar"))


async def test_requests_that_leave_the_queue_leave_no_code_in_memory(image: str, tmp_path: Path) -> None:
    body = json.dumps({"code": f"import time; time.sleep(60)  # {'x' * (15 * MEBIBYTE)}"}).encode()
    with running_server(tmp_path / "data", image, max_concurrent="1", warm_pool="1") as server:
        async with api_of(server.url) as api:
            await check_works(api)
            before = resident(server, "VmRSS")
            async with anyio.create_task_group() as tasks:
                for number in range(12):
                    evaluate = partial(
                        api.request, "POST", "/api/v1/eval", data=io.BytesIO(body), headers=JSON
                    )
                    tasks.start_soon(evaluate, name=f"request {number}")
                while (await api.get("/api/v1/cluster")).document["queue"][0]["waiting"] < 11:
                    await pause()
                tasks.cancel_scope.cancel()
            await check_works(api)
            assert resident(server, "VmRSS") - before < GROWTH_MAX


async def test_refused_mcp_calls_leave_nothing_in_memory(image: str, tmp_path: Path) -> None:
    params = {"name": "run_python", "arguments": {"code": "x" * (15 * MEBIBYTE), "nosuch": 1}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    body, headers = json.dumps(message).encode(), {**JSON, "Accept": "application/json, text/event-stream"}
    with running_server(tmp_path / "data", image, warm_pool="1") as server:
        async with api_of(server.url) as api:
            before = 0
            for number in range(9):
                async with api.session.post("/mcp", data=io.BytesIO(body), headers=headers) as response:
                    assert "unknown argument" in await response.text()
                before = resident(server, "VmRSS") if number == 0 else before
            assert resident(server, "VmRSS") - before < GROWTH_MAX


async def test_slow_readers_of_large_output_take_bounded_memory(server: Server, api: Api) -> None:
    """Ten clients open the logs of a large output at once, and read them one after the other."""
    source = f"import sys\nfor _ in range(10): sys.stdout.write('x' * {MEBIBYTE - 1})"
    execution_id = (await api.run(source))["execution_id"]
    before = resident(server, "VmRSS")
    forget_peak(server)
    path = f"/api/v1/executions/{execution_id}/logs"
    readers = [await api.session.get(path) for _ in range(10)]
    for reader in readers:
        assert len(await reader.read()) == 10 * (MEBIBYTE - 1)
    assert resident(server, "VmHWM") - before < 10 * GROWTH_MAX


@pytest.mark.parametrize(("path", "end"), [("/api/v1/eval", b'"}'), ("/mcp", b"")])
async def test_rejected_requests_leave_no_memory_behind(
    server: Server, api: Api, path: str, end: bytes
) -> None:
    """The body of a rejected request was kept until a garbage collection, after 50 of these requests."""
    await check_works(api)
    before = resident(server, "VmRSS")
    headers = {"Content-Type": "application/json"}
    for _ in range(12):
        body = io.BytesIO(b'{"cod": "' + b"x" * (15 * MEBIBYTE) + end)
        answer = await api.request("POST", path, data=body, headers=headers)
        assert answer.status == 400, answer.document
    assert resident(server, "VmRSS") - before < 2 * GROWTH_MAX


async def test_slow_callers_of_runs_with_large_output_take_bounded_memory(server: Server, api: Api) -> None:
    """16 callers get the headers of their results, and read the rest when the outputs have moved to disk."""
    size = 10 * (MEBIBYTE - 1)
    source = f"import sys\nfor _ in range(10): sys.stdout.write('x' * {MEBIBYTE - 1})"
    await check_works(api)
    before = resident(server, "VmRSS")
    callers = [await api.session.post("/api/v1/eval", json={"code": source}) for _ in range(16)]
    with anyio.fail_after(20):
        while resident(server, "VmRSS") - before > 2 * GROWTH_MAX:
            await pause()
    for caller in callers:
        assert len((await caller.json())["stdout"]) == size
    with anyio.fail_after(20):
        while spooled(server):  # until the last handler has ended
            await pause()
