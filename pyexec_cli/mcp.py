"""The command `mcp`: serve the Model Context Protocol on standard input and output, over a server's HTTP API."""

from __future__ import annotations

import asyncclick

from pyexec.mcp.sdk import loading_sdk
from pyexec_client.transport import Transport

from .flags import Flags, with_flags
from .mcp_executor import HttpExecutor


@asyncclick.command(name="mcp")
@with_flags(runs=False)
async def mcp(flags: Flags) -> int:
    """Serve MCP on standard input and output.

    For a host that starts a command, for example:

    claude mcp add python -- python-executor mcp --server URL

    A host that connects to URLs can use /mcp of the server instead.
    """
    with loading_sdk():
        from pyexec.mcp.stdio import serve_stdio  # the SDK takes a second to load

    try:
        transport = Transport(flags.server, flags.token)
    except ValueError as error:
        raise asyncclick.UsageError(str(error)) from error
    try:
        executor = HttpExecutor(transport)
        await serve_stdio(await executor.openapi(), executor)
    finally:
        await transport.close()
    return 0
