"""Resources over HTTP: executions, their output and their files."""

import base64
import json

import pytest
from mcp import MCPError

from tests.mcp.conftest import Connect
from tests.support.mcp import structured

UNKNOWN = "exe_0190a2b4c6d87e1f9a0b1c2d3e4f5061"


async def test_an_execution_can_be_read(connect: Connect) -> None:
    code = "import sys\nprint('out'); print('err', file=sys.stderr)\nopen('ä b.bin', 'wb').write(b'\\xff')"
    async with connect() as client:
        run = structured(await client.call_tool("run_python", {"code": code, "output_files": ["*.bin"]}))
        uri = f"pyexec://executions/{run['execution_id']}"
        assert uri in [resource.uri for resource in (await client.list_resources()).resources]
        assert json.loads((await client.read_resource(uri)).contents[0].text) == run
        assert (await client.read_resource(f"{uri}/stdout")).contents[0].text == "out\n"
        assert (await client.read_resource(f"{uri}/stderr")).contents[0].text == "err\n"
        (file,) = (await client.read_resource(f"{uri}/files/%C3%A4%20b.bin")).contents
        assert base64.b64decode(file.blob) == b"\xff"
        templates = (await client.list_resource_templates()).resource_templates
        assert [template.uri_template.partition("{id}")[2] for template in templates] == [
            "",
            "/stdout",
            "/stderr",
            "/files/{path}",
        ]


@pytest.mark.parametrize(
    "uri",
    [
        f"pyexec://executions/{UNKNOWN}",
        f"pyexec://executions/{UNKNOWN}/stdout",
        f"pyexec://executions/{UNKNOWN}/files/a",
        f"pyexec://executions/{UNKNOWN}/other",
        "pyexec://executions/no",
        "file:///etc/passwd",
    ],
)
async def test_an_unknown_resource_is_a_protocol_error(connect: Connect, revision: str, uri: str) -> None:
    async with connect() as client:
        with pytest.raises(MCPError) as error:
            await client.read_resource(uri)
    assert error.value.code == (-32602 if revision == "2026-07-28" else -32002)
    assert error.value.data["uri"] == uri


async def test_large_contents_arrive_whole(connect: Connect) -> None:
    """The client refuses events of more than 1 MiB."""
    code = """
print('a' * 2_000_000)
open('text', 'w').write('b' * 2_000_000)
open('binary', 'wb').write(b'\\xff' * 1_500_000)
"""
    async with connect() as client:
        run = structured(
            await client.call_tool("run_python", {"code": code, "output_files": ["text", "binary"]})
        )
        uri = f"pyexec://executions/{run['execution_id']}"
        assert len(json.loads((await client.read_resource(uri)).contents[0].text)["stdout"]) == 2_000_001
        assert len((await client.read_resource(f"{uri}/stdout")).contents[0].text) == 2_000_001
        assert len((await client.read_resource(f"{uri}/files/text")).contents[0].text) == 2_000_000
        arguments = {"execution_id": run["execution_id"], "path": "binary"}
        (file,) = (await client.call_tool("read_output_file", arguments)).content
        assert base64.b64decode(file.resource.blob) == b"\xff" * 1_500_000
