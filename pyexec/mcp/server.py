"""The MCP server: the SDK's `Server` with handlers that call an executor."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import anyio
from mcp.server.caching import CacheHint
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    CancelledNotificationParams,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
    TextContent,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from pyexec.mcp import descriptions
from pyexec.mcp.executor import Executor, ExecutorProblem
from pyexec.mcp.progress import Progress
from pyexec.mcp.resources import TEMPLATES, UnknownResource, list_resources, read_resource
from pyexec.mcp.schemas import ApiSchemas, Schema, check_arguments
from pyexec.mcp.tools import Call, create_tools

logger = logging.getLogger(__name__)

Context = ServerRequestContext[Any, Any]
ExecutorOf = Callable[[Context], Executor]
CallIdOf = Callable[[Context, Any], str | None]
"""Returns the name by which a later message can cancel a request. Takes the id of the request."""

SESSION_HEADER = "mcp-session-id"
RESOURCE_NOT_FOUND = -32002
"""The code of an unknown resource up to revision 2025-11-25. Later revisions use `INVALID_PARAMS`."""
_MISSING_CODES = ("not_found", "not_ended")
_LISTS_FRESH_MS = 60_000


def create_server(openapi: Schema, executor_of: ExecutorOf, call_id_of: CallIdOf) -> Server[Any]:
    """Return the server. `openapi` describes the API that the executors offer."""
    entries = {entry.tool.name: entry for entry in create_tools(openapi)}

    async def list_tools(_: Context, __: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=[entry.tool for entry in entries.values()])

    async def call_tool(context: Context, params: CallToolRequestParams) -> CallToolResult:
        entry = entries.get(params.name)
        if entry is None:
            raise MCPError(
                INVALID_PARAMS, f"unknown tool {params.name[:100]!r}; known are {', '.join(entries)}"
            )
        arguments = params.arguments or {}
        if (mistake := check_arguments(arguments, entry.tool.input_schema)) is not None:
            return _refused(mistake)
        progress = Progress(context)
        call = Call(
            executor=executor_of(context),
            arguments=arguments,
            call_id=call_id_of(context, context.request_id),
            on_progress=progress.on_progress,
        )
        try:
            result = await entry.run(call)
        except ExecutorProblem as problem:
            return _refused(str(problem))
        await progress.send_held()
        return result

    async def list_them(context: Context, params: PaginatedRequestParams | None) -> ListResourcesResult:
        try:
            resources, cursor = await list_resources(executor_of(context), params.cursor if params else None)
        except ExecutorProblem as problem:
            raise MCPError(INVALID_PARAMS, str(problem)) from problem
        return ListResourcesResult(resources=resources, next_cursor=cursor)

    async def list_templates(_: Context, __: PaginatedRequestParams | None) -> ListResourceTemplatesResult:
        return ListResourceTemplatesResult(resource_templates=list(TEMPLATES))

    async def read(context: Context, params: ReadResourceRequestParams) -> ReadResourceResult:
        uri = str(params.uri)
        try:
            return ReadResourceResult(contents=[await read_resource(executor_of(context), uri)])
        except (UnknownResource, ExecutorProblem) as error:
            raise MCPError(_code_of(error, context.protocol_version), str(error), {"uri": uri}) from error

    async def cancel(context: Context, params: CancelledNotificationParams) -> None:
        call_id = call_id_of(context, params.request_id)
        if call_id is None:
            return
        # The transport ends this task as soon as it has acknowledged the notification.
        with anyio.CancelScope(shield=True):
            await executor_of(context).cancel(call_id)

    api = ApiSchemas(openapi)
    server: Server[Any] = Server(
        "python-executor",
        version=openapi["info"]["version"],
        title="python-executor",
        instructions=descriptions.instructions(api),
        cache_hints={
            "tools/list": CacheHint(ttl_ms=_LISTS_FRESH_MS),
            "resources/templates/list": CacheHint(ttl_ms=_LISTS_FRESH_MS),
        },
        get_tool_input_schema=lambda name: entries[name].tool.input_schema if name in entries else None,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_resources=list_them,
        on_list_resource_templates=list_templates,
        on_read_resource=read,
    )
    server.add_notification_handler("notifications/cancelled", CancelledNotificationParams, cancel)
    server.middleware.clear()  # traces, which nothing collects
    return server


def _refused(message: str) -> CallToolResult:
    """Return a mistake that the model can correct, so it must see it."""
    return CallToolResult(content=[TextContent(text=message)], is_error=True)


def _code_of(error: Exception, version: str) -> int:
    if isinstance(error, ExecutorProblem) and error.code not in _MISSING_CODES:
        return INTERNAL_ERROR if error.code in ("internal", "unavailable") else INVALID_PARAMS
    return INVALID_PARAMS if version in MODERN_PROTOCOL_VERSIONS else RESOURCE_NOT_FOUND
