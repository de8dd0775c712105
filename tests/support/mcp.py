"""Connect the official MCP client to a server, over HTTP or standard input and output, in each era of the protocol."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp_types import CallToolResult, TextContent

from tests.support.api import Api, pause

PROGRAM = Path(sys.executable).parent / "python-executor"
ERAS = {"2026-07-28": "auto", "2025-11-25": "legacy"}
"""The modes of the client, by the revision that they negotiate."""
FOREVER = "print('on', flush=True)\nimport time; time.sleep(3600)"


@asynccontextmanager
async def http_client(
    url: str, revision: str, headers: dict[str, str] | None = None
) -> AsyncIterator[Client]:
    """Connect to `/mcp` of the server at `url`."""
    async with create_mcp_http_client(headers=headers) as http:
        transport = streamable_http_client(f"{url}/mcp", http_client=http)
        async with Client(transport, mode=ERAS[revision]) as client:
            assert client.protocol_version == revision
            yield client


@asynccontextmanager
async def stdio_client(url: str, revision: str, *arguments: str) -> AsyncIterator[Client]:
    """Start `python-executor mcp` for the server at `url`, and connect to it."""
    command = StdioServerParameters(command=str(PROGRAM), args=["mcp", "--server", url, *arguments])
    async with Client(command, mode=ERAS[revision]) as client:
        assert client.protocol_version == revision
        yield client


def text_of(result: CallToolResult) -> str:
    """Return the text content of a result."""
    return "\n".join(block.text for block in result.content if isinstance(block, TextContent))


def structured(result: CallToolResult) -> Any:
    """Return the structured content of a result that is no error."""
    assert not result.is_error, text_of(result)
    return result.structured_content


async def newest_running(api: Api, before: str | None) -> str:
    """Wait until an execution that is newer than `before` has printed something, and return its id."""
    with anyio.fail_after(60):
        while (execution := await api.newest()) in (before, None):
            await pause()
    await api.until_printed(str(execution), b"on")
    return str(execution)
