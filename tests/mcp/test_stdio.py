"""MCP over standard input and output: the command `python-executor mcp`."""

import base64
import subprocess
from pathlib import Path

import anyio
import pytest
from mcp import MCPError
from mcp_types import ResourceLink

from tests.support.api import Api
from tests.support.mcp import FOREVER, PROGRAM, newest_running, stdio_client, structured, text_of
from tests.support.server import Server
from tests.support.tenants import append_execution, tenants_file
from tests.web.in_process import running_web


async def test_the_tools_work_as_over_http(server: Server, revision: str) -> None:
    progress: list[str | None] = []

    async def on_progress(_value: float, _total: float | None, message: str | None) -> None:
        progress.append(message)

    async with stdio_client(server.url, revision) as client:
        assert [tool.name for tool in (await client.list_tools()).tools][:2] == [
            "run_python",
            "submit_python",
        ]
        code = "open('a.bin', 'wb').write(b'\\xff'); print('hello'); 6 * 7"
        arguments = {"code": code, "output_files": ["*.bin"]}
        run = await client.call_tool("run_python", arguments, progress_callback=on_progress)
        document = structured(run)
        assert (document["stdout"], document["result"]) == ("hello\n", "42")
        assert any("running" in (message or "") for message in progress)
        (link,) = [block for block in run.content if isinstance(block, ResourceLink)]
        (contents,) = (await client.read_resource(link.uri)).contents
        assert base64.b64decode(contents.blob) == b"\xff"
        execution = {"execution_id": document["execution_id"]}
        file = await client.call_tool("read_output_file", {**execution, "path": "a.bin"})
        assert base64.b64decode(file.content[0].resource.blob) == b"\xff"
        listed = structured(await client.call_tool("list_executions", {"limit": 1}))
        assert listed["executions"][0]["execution_id"] == document["execution_id"]

        submitted = structured(await client.call_tool("submit_python", {"code": "print(1)", "stdin": ""}))
        waited = await client.call_tool("get_execution", {**submitted, "wait_seconds": 60})
        assert structured(waited)["stdout"] == "1\n"
        assert structured(await client.call_tool("kill_execution", submitted)) == {"status": "completed"}

        failed = await client.call_tool("run_python", {"code": "1 / 0"})
        assert failed.is_error
        assert "ZeroDivisionError" in text_of(failed)


async def test_mistakes_are_errors(server: Server, revision: str) -> None:
    async with stdio_client(server.url, revision) as client:
        for tool, arguments, message in (
            ("run_python", {}, "code is missing"),
            ("run_python", {"code": "1", "requirements": "-e ."}, "line 1 of requirements"),
            ("get_execution", {"execution_id": "exe_" + 32 * "0"}, "does not exist"),
            ("read_output_file", {"execution_id": "exe_" + 32 * "0", "path": "x"}, "does not exist"),
        ):
            rejected = await client.call_tool(tool, arguments)
            assert rejected.is_error
            assert message in text_of(rejected)
        with pytest.raises(MCPError, match="unknown tool"):
            await client.call_tool("x", {})


async def test_cancelling_a_call_kills_the_run(server: Server, revision: str, api: Api) -> None:
    before = await api.newest()
    async with stdio_client(server.url, revision) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.call_tool, "run_python", {"code": FOREVER})
            execution = await newest_running(api, before)
            tasks.cancel_scope.cancel()
        assert (await api.ended(execution))["status"] == "killed"


async def test_the_host_that_leaves_ends_its_run(server: Server, revision: str, api: Api) -> None:
    before = await api.newest()
    async with stdio_client(server.url, revision) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(client.call_tool, "run_python", {"code": FOREVER})
        execution = await newest_running(api, before)
        tasks.cancel_scope.cancel()
    assert (await api.ended(execution))["status"] == "killed"


async def test_the_token_names_the_tenant(tmp_path: Path, revision: str) -> None:
    async with running_web(tmp_path, tenants_file=tenants_file(tmp_path)) as web:
        execution = await append_execution(web.log, "a")
        async with stdio_client(web.url, revision, "--token", "token-b") as client:
            rejected = await client.call_tool("get_execution", {"execution_id": execution})
            assert "does not exist" in text_of(rejected)


def test_a_server_that_does_not_answer_is_an_error() -> None:
    command = [PROGRAM, "mcp", "--server", "http://127.0.0.1:1"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (125, "")
    assert "cannot reach the server" in done.stderr
