"""The tools over HTTP: their schemas, results and errors."""

import base64
from functools import partial
from pathlib import Path

import anyio
import jsonschema
import pytest
from mcp import MCPError
from mcp_types import ResourceLink

from pyexec.domain.field_hints import RUN_HINTS
from pyexec.mcp import argument_terms, schemas
from pyexec.web import request_parser
from pyexec.web.mcp.executor import ServiceExecutor
from tests.mcp.conftest import Connect
from tests.support.api import Api
from tests.support.mcp import ERAS, http_client, structured, text_of
from tests.web.in_process import running_web

NAMES = [
    "run_python",
    "submit_python",
    "get_execution",
    "kill_execution",
    "list_executions",
    "read_output_file",
    "open_session",
    "close_session",
    "interrupt_session",
    "list_files",
    "write_file",
    "read_file",
]
UNKNOWN = "exe_0190a2b4c6d87e1f9a0b1c2d3e4f5061"


async def test_the_tools_are_listed_in_order_with_valid_schemas(connect: Connect) -> None:
    async with connect() as client:
        tools = (await client.list_tools()).tools
        assert [tool.name for tool in tools] == NAMES
        for tool in tools:
            jsonschema.Draft202012Validator.check_schema(tool.input_schema)
            assert tool.description
            if tool.output_schema is not None:
                jsonschema.Draft202012Validator.check_schema(tool.output_schema)
        annotations = {tool.name: tool.annotations for tool in tools}
        assert [name for name in NAMES if annotations[name].read_only_hint] == [
            "get_execution",
            "list_executions",
            "read_output_file",
            "list_files",
            "read_file",
        ]


async def test_the_descriptions_name_the_limits_of_the_server(connect: Connect) -> None:
    async with connect() as client:
        run = (await client.list_tools()).tools[0]
        assert "300 s of time" in run.description
        assert "1024 MiB of memory" in run.description
        assert run.input_schema["properties"]["timeout_seconds"]["default"] == 300
        assert "300 s of time" in client.instructions


async def test_only_run_python_promises_the_last_expression(connect: Connect) -> None:
    async with connect() as client:
        run, submit, *_ = (await client.list_tools()).tools
        code = [tool.input_schema["properties"]["code"]["description"] for tool in (run, submit)]
        assert [text.count("is returned as `result`") for text in code] == [1, 0]


async def test_a_run_returns_the_result_and_readable_text(connect: Connect) -> None:
    async with connect() as client:
        result = await client.call_tool("run_python", {"code": "print('hello')\n6 * 7"})
        document = structured(result)
        assert (document["status"], document["stdout"], document["result"]) == ("completed", "hello\n", "42")
        assert text_of(result).startswith("stdout:\nhello\n\nresult: 42\n\nexe_")


async def test_a_display_of_many_values_does_not_delay_other_requests(connect: Connect, api: Api) -> None:
    slowest = 0.0

    async def probe() -> None:
        nonlocal slowest
        while True:
            started = anyio.current_time()
            assert (await api.request("GET", "/health")).status == 200
            slowest = max(slowest, anyio.current_time() - started)
            await anyio.sleep(0.01)

    async with connect() as client, anyio.create_task_group() as tasks:
        tasks.start_soon(probe)
        code = "class D:\n    def _repr_mimebundle_(self, **_): return {'application/json': [[]] * 100_000}\n"
        begun = anyio.current_time()
        result = structured(await client.call_tool("run_python", {"code": f"{code}display(D())"}))
        seconds = anyio.current_time() - begun
        tasks.cancel_scope.cancel()
    assert result["truncated"]["displays"] is True
    assert len(result["displays"]) == 1
    assert slowest < 0.6 * seconds


async def test_arguments_reach_the_program(connect: Connect) -> None:
    async with connect() as client:
        code = "import sys, other\nopen('out.txt', 'w').write(other.word + sys.stdin.read())"
        arguments = {
            "code": code,
            "files": [{"name": "other.py", "content": "word = 'héllo '"}],
            "stdin": "world",
            "timeout_seconds": 20,
            "network": False,
            "output_files": ["*.txt", "missing"],
        }
        result = await client.call_tool("run_python", arguments)
        execution = structured(result)["execution_id"]
        (link,) = [block for block in result.content if isinstance(block, ResourceLink)]
        assert (link.uri, link.name, link.size) == (
            f"pyexec://executions/{execution}/files/out.txt",
            "out.txt",
            12,
        )
        assert "missing (no_match)" in text_of(result)
        file = await client.call_tool("read_output_file", {"execution_id": execution, "path": "out.txt"})
        assert text_of(file) == "héllo world"


async def test_the_block_of_a_script_can_be_ignored(connect: Connect) -> None:
    async with connect() as client:
        code = "# /// script\n# dependencies = [\n# ///\nprint('ran')"
        rejected = await client.call_tool("run_python", {"code": code})
        assert rejected.is_error
        assert "send inline_requirements: false" in text_of(rejected)
        arguments = {"code": code, "inline_requirements": False}
        assert structured(await client.call_tool("run_python", arguments))["stdout"] == "ran\n"
        submitted = structured(await client.call_tool("submit_python", arguments))
        result = await client.call_tool("get_execution", {**submitted, "wait_seconds": 60})
        assert structured(result)["stdout"] == "ran\n"


async def test_a_failing_program_is_an_error_with_its_traceback(connect: Connect) -> None:
    async with connect() as client:
        result = await client.call_tool("run_python", {"code": "print('before')\n1 / 0"})
        assert result.is_error
        assert result.structured_content["error_type"] == "ZeroDivisionError"
        assert "Traceback (most recent call last)" in text_of(result)
        assert "before" in text_of(result)


async def test_a_missing_package_is_an_error_that_says_how_to_get_it(connect: Connect) -> None:
    async with connect() as client:
        result = await client.call_tool("run_python", {"code": "import sklearn"})
        assert result.is_error
        assert result.structured_content["error_type"] == "ModuleNotFoundError"
        assert "add the package scikit-learn to the requirements: " in text_of(result)


async def test_a_timeout_is_an_error(connect: Connect) -> None:
    async with connect() as client:
        result = await client.call_tool("run_python", {"code": "while True: pass", "timeout_seconds": 0.5})
        assert result.is_error
        assert "timeout" in text_of(result)


async def test_a_submitted_program_is_waited_for_and_listed(connect: Connect) -> None:
    async with connect() as client:
        execution = structured(await client.call_tool("submit_python", {"code": "print('later')"}))[
            "execution_id"
        ]
        arguments = {"execution_id": execution, "wait_seconds": 60}
        result = structured(await client.call_tool("get_execution", arguments))
        assert (result["status"], result["stdout"]) == ("completed", "later\n")
        listed = structured(await client.call_tool("list_executions", {"status": "completed"}))
        assert execution in [entry["execution_id"] for entry in listed["executions"]]


async def test_a_submitted_program_is_killed(connect: Connect, api: Api) -> None:
    async with connect() as client:
        code = "print('on', flush=True)\nimport time; time.sleep(3600)"
        execution = structured(await client.call_tool("submit_python", {"code": code}))["execution_id"]
        await api.until_printed(execution, b"on")
        killed = structured(await client.call_tool("kill_execution", {"execution_id": execution}))
        assert killed == {"status": "killed"}
        result = await client.call_tool("get_execution", {"execution_id": execution})
        assert structured(result)["status"] == "killed"


async def test_a_binary_file_is_returned_as_bytes(connect: Connect) -> None:
    async with connect() as client:
        code = "open('plot.png', 'wb').write(b'\\x89PNG\\r\\n\\x1a\\n'); open('data.bin', 'wb').write(b'\\xff\\x00')"
        run = structured(
            await client.call_tool("run_python", {"code": code, "output_files": ["*.png", "*.bin"]})
        )
        execution = run["execution_id"]
        image = await client.call_tool("read_output_file", {"execution_id": execution, "path": "plot.png"})
        assert (image.content[0].type, base64.b64decode(image.content[0].data)) == (
            "image",
            b"\x89PNG\r\n\x1a\n",
        )
        for path in ("data.bin", "/work/data.bin"):
            data = await client.call_tool("read_output_file", {"execution_id": execution, "path": path})
            assert base64.b64decode(data.content[0].resource.blob) == b"\xff\x00"


async def test_a_whole_number_may_be_a_float(connect: Connect) -> None:
    async with connect() as client:
        listed = structured(await client.call_tool("list_executions", {"limit": 1.0}))
        assert len(listed["executions"]) <= 1


async def test_null_for_an_argument_means_left_out(connect: Connect) -> None:
    """Frameworks with strict schemas send every argument."""
    unused = {"files": None, "stdin": None, "timeout_seconds": None, "session_id": None, "network": None}
    async with connect() as client:
        result = await client.call_tool("run_python", {"code": "6 * 7", **unused})
        assert not result.is_error
        assert "result: 42" in text_of(result)
        missing = await client.call_tool("run_python", {"code": None, "zzz": None})
        assert "unknown argument 'zzz'" in text_of(missing)


async def test_an_unexpected_error_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def page(*_: object) -> None:
        raise ValueError("a secret")

    monkeypatch.setattr(ServiceExecutor, "page", page)
    async with running_web(tmp_path) as web:
        for revision in ERAS:
            async with http_client(web.url, revision) as client:
                for call in (partial(client.call_tool, "list_executions", {}), client.list_resources):
                    with pytest.raises(
                        MCPError, match=r"^internal server error; see the server log$"
                    ) as error:
                        await call()
                    assert error.value.code == -32603


async def test_an_unknown_tool_is_a_protocol_error(connect: Connect) -> None:
    async with connect() as client:
        with pytest.raises(MCPError, match="unknown tool 'run_ruby'; known are run_python") as error:
            await client.call_tool("run_ruby", {})
        assert error.value.code == -32602


def test_names_of_other_services_are_known_as_in_the_api() -> None:
    meant = {name: f"did you mean {meant!r}?" for name, meant in argument_terms.OTHER_NAMES.items()}
    hints = {name: argument_terms.argument_terms(hint) for name, hint in RUN_HINTS.items()}
    assert {name: hint for name, hint in hints.items() if hint.startswith("did you mean")} == meant


def test_lists_have_the_limit_of_the_api() -> None:
    assert schemas.ITEMS_MAX == request_parser.ITEMS_MAX


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("run_python", {}, "code is missing"),
        ("run_python", {"code": "1", "zzz": 3}, "unknown argument 'zzz'; known are code, files"),
        ("run_python", {"cod": "x"}, "unknown argument 'cod'; did you mean 'code'?"),
        (
            "run_python",
            {"code": "1", "packages": "a"},
            "unknown argument 'packages'; did you mean 'requirements'?",
        ),
        ("run_python", {"code": "1", "environment": {}}, "unknown argument 'environment'; known are code"),
        ("run_python", {"code": 1}, "code must be a string"),
        (
            "run_python",
            {"code": "1", "requirements": ["six"]},
            r'requirements must be a string; for example "',
        ),
        ("run_python", {"code": "1", "files": {"a": "b"}}, 'files must be a list; for example [{"name": '),
        ("run_python", {"code": "1", "network": "yes"}, "network must be true or false"),
        (
            "run_python",
            {"code": "1", "timeout": 3},
            "unknown argument 'timeout'; did you mean 'timeout_seconds'?",
        ),
        ("run_python", {"code": "1", "files": [{"name": "a"}]}, "files[0].content is missing"),
        ("run_python", {"code": "1", "output_files": ["a"] * 10_001}, "output_files must have at most 10000"),
        (
            "run_python",
            {"code": "1", "output_files": ["a"] * 200 + [1]},
            "output_files[200] must be a string",
        ),
        ("run_python", {"code": "1", "timeout_seconds": 0}, "timeout_seconds"),
        ("run_python", {"code": "1", "timeout_seconds": 1e9}, "timeout_seconds"),
        ("run_python", {"code": "1", "files": [{"name": "../a", "content": ""}]}, "outside /work"),
        ("run_python", {"code": "1", "requirements": "-e ."}, "line 1 of requirements"),
        ("get_execution", {"execution_id": "no"}, "execution_id"),
        ("get_execution", {"execution_id": UNKNOWN}, "does not exist"),
        ("kill_execution", {"execution_id": UNKNOWN}, "does not exist"),
        ("read_output_file", {"execution_id": UNKNOWN, "path": "a"}, "does not exist"),
        ("list_executions", {"cursor": "x"}, "cursor must be"),
    ],
)
async def test_a_wrong_argument_is_an_error_that_the_model_sees(
    connect: Connect, tool: str, arguments: dict[str, object], message: str
) -> None:
    async with connect() as client:
        result = await client.call_tool(tool, arguments)
        assert result.is_error
        assert message in text_of(result)
        assert len(text_of(result)) < 600
