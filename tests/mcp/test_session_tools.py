"""The tools for sessions, over standard input and output and a server in memory."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import aiohttp
import anyio
import anyio.to_thread
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from pyexec.mcp.executor import ToolError
from pyexec.mcp.sessions import Sessions
from pyexec.settings import Settings
from pyexec.web.application import ROUTES
from pyexec.web.mcp.loopback import LoopbackHttp
from pyexec.web.openapi.document import openapi_document, server_info
from tests.support.fake_sessions import FakeSessions, fake_sessions
from tests.support.mcp import stdio_client, structured, text_of

SESSION_TOOLS = [
    "open_session",
    "close_session",
    "interrupt_session",
    "list_files",
    "write_file",
    "read_file",
]
SECONDS = {"type": ["number", "null"], "minimum": 1}
COMPONENTS: dict[str, Any] = {
    "SessionView": {
        "type": "object",
        "properties": {"id": {"type": "string"}, "status": {"type": "string"}},
        "required": ["id", "status"],
    },
    "SessionRequest": {
        "type": "object",
        "properties": {
            "requirements_txt": {"type": ["string", "null"]},
            "idle_timeout_seconds": SECONDS,
            "lifetime_seconds": SECONDS,
        },
    },
}


@pytest.fixture
def fake() -> Iterator[tuple[str, FakeSessions]]:
    with fake_sessions() as (url, fake):
        fake.openapi = openapi_document(ROUTES, server_info(Settings()))
        fake.openapi["components"]["schemas"] |= COMPONENTS
        yield url, fake


async def test_a_session_keeps_variables_and_files_between_calls(fake: tuple[str, FakeSessions]) -> None:
    url, server = fake
    async with stdio_client(url, "2025-11-25") as client:
        assert "call open_session" in (client.instructions or "")
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert list(tools)[-6:] == SESSION_TOOLS
        assert "open_session" in tools["run_python"].description
        arguments = {"requirements": "numpy", "network": True, "timeout_seconds": 5, "lifetime_seconds": 60}
        arguments["memory_mb"] = 256
        opened = structured(await client.call_tool("open_session", arguments))
        assert server.sessions[opened["id"]].request == {
            "config": {"network_disabled": False, "timeout_seconds": 5, "memory_mb": 256},
            "requirements_txt": "numpy",
            "lifetime_seconds": 60,
        }
        session = {"session_id": opened["id"]}
        run = {**session, "timeout_seconds": 2}
        structured(await client.call_tool("run_python", {**run, "code": "x = 6"}))
        result = await client.call_tool("run_python", {**run, "code": "print(x)\nx * 7"})
        assert text_of(result).startswith("stdout:\n6\n\nresult: 42")
        assert server.requests[-1] == {"code": "print(x)\nx * 7", "timeout_seconds": 2}
        failed = await client.call_tool("run_python", {**session, "code": "die"})
        assert failed.is_error
        assert "its variables are lost" in text_of(failed)

        written = await client.call_tool("write_file", {**session, "path": "a b.txt", "text": "grüße"})
        assert text_of(written) == "wrote 7 bytes to a b.txt"
        data = base64.b64encode(b"\xff").decode()
        await client.call_tool("write_file", {**session, "path": "/work/b.bin", "base64": data})
        assert server.sessions[opened["id"]].files == {"a b.txt": "grüße".encode(), "b.bin": b"\xff"}
        read = await client.call_tool("read_file", {**session, "path": "a b.txt"})
        assert text_of(read) == "grüße"
        listed = await client.call_tool("list_files", session)
        assert text_of(listed) == "7 a b.txt\n1 b.bin"
        matching = await client.call_tool("list_files", {**session, "pattern": "a b.*"})
        assert structured(matching) == {"files": [{"path": "a b.txt", "size": 7}], "truncated": False}
        nothing = await client.call_tool("list_files", {**session, "pattern": "*.csv"})
        assert text_of(nothing) == "no files"
        binary = await client.call_tool("read_file", {**session, "path": "b.bin"})
        assert base64.b64decode(binary.content[0].resource.blob) == b"\xff"

        closed = structured(await client.call_tool("close_session", session))
        assert closed["status"] == "closed"


async def test_code_that_runs_is_interrupted(fake: tuple[str, FakeSessions]) -> None:
    url, server = fake
    async with stdio_client(url, "2025-11-25") as client:
        session = {"session_id": structured(await client.call_tool("open_session", {}))["id"]}
        idle = await client.call_tool("interrupt_session", session)
        assert (structured(idle), text_of(idle)) == ({"interrupted": False}, "no code runs")
        async with anyio.create_task_group() as tasks:

            async def run() -> None:
                failed = await client.call_tool("run_python", {**session, "code": "sleep"})
                assert "KeyboardInterrupt" in text_of(failed)

            tasks.start_soon(run)
            assert await anyio.to_thread.run_sync(server.cells.sleeping.wait, 60)
            assert structured(await client.call_tool("interrupt_session", session)) == {"interrupted": True}


async def test_mistakes_are_errors_that_the_model_sees(fake: tuple[str, FakeSessions]) -> None:
    url, _ = fake
    async with stdio_client(url, "2025-11-25") as client:
        opened = structured(await client.call_tool("open_session", {}))
        session = {"session_id": opened["id"]}
        for tool, arguments, message in (
            (
                "run_python",
                {**session, "code": "1", "stdin": "x"},
                "stdin cannot be combined with session_id; write the input to a file with write_file",
            ),
            (
                "run_python",
                {**session, "code": "1", "network": True},
                "network cannot be combined with session_id; give it to open_session",
            ),
            ("run_python", {"session_id": "ses_x", "code": "1"}, "no such session"),
            ("open_session", {"lifetime_seconds": 0}, "lifetime_seconds"),
            ("write_file", {**session, "path": "a"}, "give either text or base64"),
            ("write_file", {**session, "path": "a", "base64": "?"}, "base64 is malformed"),
            ("read_file", {**session, "path": "missing"}, "no such file"),
            ("interrupt_session", {"session_id": "ses_x"}, "no such session"),
            ("list_files", {"session_id": "ses_x"}, "no such session"),
            ("read_file", {**session, "path": "/"}, "not the path of a file"),
            ("read_file", {**session, "path": "/work/"}, "not the path of a file"),
            ("write_file", {**session, "path": "/tmp/a", "text": ""}, "not the path of a file"),
            ("read_file", {**session, "path": "../../../../metrics"}, "not the path of a file"),
            ("close_session", {"session_id": ".."}, "not the id of a session"),
        ):
            rejected = await client.call_tool(tool, arguments)
            assert rejected.is_error, tool
            assert message in text_of(rejected)
        await client.call_tool("close_session", session)
        late = await client.call_tool("run_python", {**session, "code": "1"})
        assert "the session is closed" in text_of(late)


async def test_a_server_without_sessions_has_no_tools_for_them(fake: tuple[str, FakeSessions]) -> None:
    url, server = fake
    for name in COMPONENTS:
        server.openapi["components"]["schemas"].pop(name)
    async with stdio_client(url, "2025-11-25") as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert not tools.keys() & set(SESSION_TOOLS)
        assert "session_id" not in tools["run_python"].input_schema["properties"]
        assert "open_session" not in (client.instructions or "")


async def test_a_server_sends_the_requests_to_itself() -> None:
    fake = FakeSessions()
    application = fake.application()

    async def use(request: web.Request) -> web.Response:
        sessions = Sessions(LoopbackHttp(request))
        opened = (await sessions.open({}))["id"]
        await sessions.write_file(opened, "f", b"data")
        assert await sessions.read_file(opened, "f", 4) == b"data"
        for call in (sessions.read_file(opened, "f", 3), sessions.run("ses_x", {"code": "1"})):
            with pytest.raises(ToolError) as error:
                await call
            assert error.value.code in ("too_large", "not_found")
        result = await sessions.run(opened, {"code": "6 * 7"})
        return web.json_response({**result, "state": await sessions.close(opened)})

    application.router.add_get("/use", use)
    async with (
        TestServer(application) as server,
        aiohttp.ClientSession(headers={"Authorization": "Bearer t"}) as session,
        session.get(server.make_url("/use")) as answer,
    ):
        document = json.loads(await answer.read())
    assert (document["result"], document["state"]["status"]) == ("42", "closed")
    assert fake.tokens == {"Bearer t"}
