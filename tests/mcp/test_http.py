"""MCP over HTTP: cancellation, progress, tenants, and requests that are wrong."""

import json
import socket
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest
from mcp import MCPError
from mcp.shared._httpx_utils import create_mcp_http_client

from pyexec.mcp.executor import ToolError
from pyexec_cli.mcp_executor import HttpExecutor
from pyexec_client.transport import Transport
from tests.mcp.conftest import Connect
from tests.support.api import Api
from tests.support.mcp import ERAS, FOREVER, http_client, newest_running, structured, text_of
from tests.support.server import Server
from tests.support.tenants import append_execution, as_token, tenants_file
from tests.web.in_process import ended, running_web

HEADERS = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "t", "version": "1"},
    },
}
UNKNOWN_VERSION = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/list",
    "params": {
        "_meta": {
            "io.modelcontextprotocol/protocolVersion": "1999-01-01",
            "io.modelcontextprotocol/clientCapabilities": {},
        }
    },
}


@pytest.mark.parametrize(
    "message",
    [
        {"id": "x" * 10**6, "method": "ping"},
        {"id": 1, "method": "x" * 10**6},
        {"id": 1, "method": "resources/read", "params": {"uri": "x" * 10**6}},
        {
            "id": 1,
            "method": "resources/read",
            "params": {"uri": f"pyexec://executions/exe_0/files/{'x' * 10**6}"},
        },
    ],
    ids=["id", "method", "uri", "path"],
)
async def test_an_error_repeats_only_the_beginning_of_the_input(
    server: Server, message: dict[str, Any]
) -> None:
    async with aiohttp.ClientSession() as session:
        document = {"jsonrpc": "2.0", **message}
        async with session.post(f"{server.url}/mcp", json=document, headers=HEADERS) as response:
            text = await response.text()
    assert '"error"' in text
    assert len(text) < 10_000


async def test_cancelling_a_call_kills_the_run(connect: Connect, api: Api) -> None:
    before = await api.newest()
    async with connect() as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.call_tool, "run_python", {"code": FOREVER})
            execution = await newest_running(api, before)
            tasks.cancel_scope.cancel()
        assert (await api.ended(execution))["status"] == "killed"


@pytest.mark.parametrize("version", [None, "2025-06-18"])
async def test_a_client_that_vanishes_ends_its_run(server: Server, api: Api, version: str | None) -> None:
    before = await api.newest()
    call = {"name": "run_python", "arguments": {"code": FOREVER}}
    body = json.dumps({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": call}).encode()
    headers = {**HEADERS, "Host": "localhost", "Content-Length": str(len(body))}
    if version is not None:
        headers["MCP-Protocol-Version"] = version
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    port = int(server.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(f"POST /mcp HTTP/1.1\r\n{head}\r\n".encode() + body)
        execution = await newest_running(api, before)
    assert (await api.ended(execution))["status"] == "killed"


async def test_progress_reports_phases_and_output(connect: Connect) -> None:
    progress: list[tuple[float, str | None]] = []
    printed = anyio.Event()

    async def on_progress(value: float, _total: float | None, message: str | None) -> None:
        progress.append((value, message))
        if "half way" in (message or ""):
            printed.set()

    async with connect() as client:
        code = "import time\ndisplay('shown')\nprint('half way', flush=True)\ntime.sleep(1)\n'done'"
        result = await client.call_tool("run_python", {"code": code}, progress_callback=on_progress)
    assert structured(result)["result"] == "'done'"
    assert printed.is_set(), progress
    assert any("running" in (message or "") for _, message in progress)
    assert not any("text/plain" in (message or "") for _, message in progress)
    assert [value for value, _ in progress] == sorted({value for value, _ in progress})


async def test_a_large_output_arrives_cut(connect: Connect) -> None:
    async with connect() as client:
        result = await client.call_tool("run_python", {"code": "print('a' * 3_000_000)"})
    assert structured(result)["truncated"]["stdout"] is True
    assert "characters left out" in text_of(result)


async def test_output_is_reported_while_the_program_prints_nothing_else(connect: Connect) -> None:
    printed = anyio.Event()

    async def on_progress(_value: float, _total: float | None, message: str | None) -> None:
        if "on" in (message or "").split("\n"):
            printed.set()

    async with connect() as client, anyio.create_task_group() as tasks:
        call = partial(client.call_tool, "run_python", {"code": FOREVER}, progress_callback=on_progress)
        tasks.start_soon(call)
        with anyio.fail_after(60):
            await printed.wait()
        tasks.cancel_scope.cancel()


async def test_a_session_is_only_a_name(api: Api) -> None:
    """Every replica accepts a session of another one, so a client needs none."""
    answer = await api.session.post("/mcp", json=INITIALIZE, headers=HEADERS)
    assert answer.status == 200
    session = answer.headers["Mcp-Session-Id"]
    assert len(session) == 32
    await answer.read()
    listing = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
    for name in (session, "another"):
        headers = {**HEADERS, "MCP-Protocol-Version": "2025-11-25", "Mcp-Session-Id": name}
        async with api.session.post("/mcp", json=listing, headers=headers) as listed:
            assert listed.status == 200
            assert "Mcp-Session-Id" not in listed.headers
            assert b'"run_python"' in await listed.read()


SESSION_HEADERS = {**HEADERS, "MCP-Protocol-Version": "2025-11-25", "Mcp-Session-Id": "a-session-of-a-test"}


async def test_ids_that_are_used_again_run_the_new_code(api: Api) -> None:
    executions = set()
    for code, result in (("1 + 1", "result: 2"), ("1 + 2", "result: 3"), ("1 + 1", "result: 2")):
        call = {"name": "run_python", "arguments": {"code": code}}
        body = {"jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": call}
        async with api.session.post("/mcp", json=body, headers=SESSION_HEADERS) as answer:
            assert result in await answer.text()
        executions.add(await api.newest())
    assert len(executions) == 3


async def test_a_cancellation_kills_the_run_whose_id_has_the_same_type(api: Api) -> None:
    executions = {}
    call = {"name": "run_python", "arguments": {"code": FOREVER}}

    async def run(request_id: int | str) -> None:
        body = {"jsonrpc": "2.0", "id": request_id, "method": "tools/call", "params": call}
        async with api.session.post("/mcp", json=body, headers=SESSION_HEADERS) as answer:
            await answer.read()

    async with anyio.create_task_group() as tasks:
        for request_id in (6, "6"):
            before = await api.newest()
            tasks.start_soon(run, request_id)
            executions[request_id] = await newest_running(api, before)
        for request_id, other in (("6", 6), (6, None)):
            params = {"requestId": request_id}
            body = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}
            async with api.session.post("/mcp", json=body, headers=SESSION_HEADERS) as answer:
                assert answer.status == 202
            assert (await api.ended(executions[request_id]))["status"] == "killed"
            if other is not None:
                state = await api.request("GET", f"/api/v1/executions/{executions[other]}")
                assert state.document["status"] == "running"


async def test_a_cancellation_waits_for_a_call_that_is_on_its_way(api: Api) -> None:
    async def cancel() -> None:
        params = {"requestId": 77}
        body = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}
        async with api.session.post("/mcp", json=body, headers=SESSION_HEADERS) as answer:
            assert answer.status == 202

    call = {"name": "run_python", "arguments": {"code": FOREVER}}
    body = {"jsonrpc": "2.0", "id": 77, "method": "tools/call", "params": call}
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cancel)
        async with api.session.post("/mcp", json=body, headers=SESSION_HEADERS) as answer:
            text = await answer.text()
    assert '"status":"killed"' in text.replace(": ", ":").replace("\\", "")


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_other_methods_are_not_allowed(api: Api, method: str) -> None:
    answer = await api.request(method, "/mcp", headers={"Accept": "text/event-stream"})
    assert (answer.status, answer.headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize(
    ("headers", "body", "status", "code"),
    [
        ({"MCP-Protocol-Version": "1999-01-01", "Mcp-Method": "tools/list"}, UNKNOWN_VERSION, 400, -32022),
        ({}, {"jsonrpc": "2.0", "id": 1, "method": "no/such"}, 200, -32601),
        ({}, {"jsonrpc": "2.0", "id": None, "method": "ping"}, 400, -32600),
        ({}, {"jsonrpc": "2.0", "id": 1.5, "method": "ping"}, 400, -32600),
        ({}, {"jsonrpc": "2.0", "id": True, "method": "ping"}, 400, -32600),
        ({}, [], 400, -32602),
        ({}, "{", 400, -32700),
        ({}, '{"jsonrpc": "2.0", "id": 1, "id": 2, "method": "ping"}', 400, -32700),
        (
            {},
            f'{{"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {json.dumps([""] * 200_000)}}}',
            400,
            -32700,
        ),
    ],
    ids=[
        "version",
        "method",
        "no id",
        "fraction",
        "flag",
        "batch",
        "json",
        "repeated name",
        "too many strings",
    ],
)
async def test_a_wrong_message_is_an_error(
    api: Api, headers: dict[str, str], body: Any, status: int, code: int | None
) -> None:
    text = body if isinstance(body, str) else json.dumps(body)
    async with api.session.post("/mcp", data=text, headers={**HEADERS, **headers}) as answer:
        content = await answer.text()
        assert (answer.status, f'"code":{code}' in content.replace(" ", "")) == (status, True), content


async def test_a_body_of_20_mebibytes_is_rejected(connect: Connect) -> None:
    async with connect() as client:
        with pytest.raises(MCPError, match="larger than 16777216 bytes"):
            await client.call_tool("run_python", {"code": "#" * 20 * 1024 * 1024})


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://other.example"},
        {"Origin": "http://rebound.example", "Host": "rebound.example"},
        {"Origin": "http://rebound.example:8080", "Host": "rebound.example:8080"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
    ids=str,
)
async def test_a_page_of_another_site_is_rejected(api: Api, headers: dict[str, str]) -> None:
    answer = await api.request("POST", "/mcp", json=INITIALIZE, headers={**HEADERS, **headers})
    assert answer.status == 403, answer.document


@pytest.mark.parametrize("host", ["localhost:1", "127.0.0.1:1", "[::1]:1"])
async def test_a_page_of_this_machine_is_accepted(api: Api, host: str) -> None:
    headers = {**HEADERS, "Origin": f"http://{host}", "Host": host}
    async with api.session.post("/mcp", json=INITIALIZE, headers=headers) as answer:
        assert answer.status == 200


async def test_a_large_output_file_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyexec.mcp.tools.FILE_BYTES_MAX", 1000)
    async with running_web(tmp_path) as web:
        execution = await ended(web)
        async with http_client(web.url, "2026-07-28") as client:
            arguments = {"execution_id": execution, "path": "big.bin"}
            rejected = await client.call_tool("read_output_file", arguments)
            assert rejected.is_error
            assert "at most 1000" in text_of(rejected)
        transport = Transport(web.url)
        try:
            with pytest.raises(ToolError, match="more than 1000 bytes"):
                await HttpExecutor(transport).read_file(execution, "big.bin", 1000)
        finally:
            await transport.close()


@pytest.mark.parametrize("revision", ERAS)
async def test_another_tenants_execution_does_not_exist(tmp_path: Path, revision: str) -> None:
    async with running_web(tmp_path, tenants_file=tenants_file(tmp_path)) as web:
        execution = await append_execution(web.log, "a")
        async with http_client(web.url, revision, as_token("second-a")) as own:
            seen = structured(await own.call_tool("get_execution", {"execution_id": execution}))
            assert (seen["status"], seen["tenant"]) == ("completed", "a")
        async with http_client(web.url, revision, as_token("token-b")) as other:
            assert structured(await other.call_tool("list_executions", {}))["executions"] == []
            for tool in ("get_execution", "kill_execution"):
                rejected = await other.call_tool(tool, {"execution_id": execution})
                assert rejected.is_error
                assert "does not exist" in text_of(rejected)
            with pytest.raises(MCPError, match="does not exist"):
                await other.read_resource(f"pyexec://executions/{execution}")


async def test_a_client_without_a_token_is_rejected(tmp_path: Path) -> None:
    async with running_web(tmp_path, tenants_file=tenants_file(tmp_path)) as web:
        async with create_mcp_http_client() as http:
            answer = await http.post(f"{web.url}/mcp", json=INITIALIZE, headers=HEADERS)
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
