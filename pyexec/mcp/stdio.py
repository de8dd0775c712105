"""MCP over standard input and output, for a host that starts this process."""

from __future__ import annotations

from mcp.server.stdio import stdio_server

from pyexec.mcp.executor import Executor
from pyexec.mcp.schemas import Schema
from pyexec.mcp.server import create_server


async def serve_stdio(openapi: Schema, executor: Executor) -> None:
    """Serve one host until it closes standard input."""
    server = create_server(openapi, lambda _: executor, lambda _, __: None)
    async with stdio_server() as (messages, answers):
        await server.run(messages, answers, server.create_initialization_options())
