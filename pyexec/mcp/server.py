"""The MCP server: the SDK's `Server` with handlers that call an executor."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import anyio
from attrs import frozen
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
from pyexec.mcp.executor import Executor, ToolError
from pyexec.mcp.progress import Progress
from pyexec.mcp.resources import TEMPLATES, UnknownResource, list_resources, read_resource
from pyexec.mcp.schemas import ApiSchemas, Schema, check_arguments, with_whole_numbers, without_nulls
from pyexec.mcp.tool_entry import Call, ToolEntry
from pyexec.mcp.tools import create_tools

logger = logging.getLogger(__name__)

McpContext = ServerRequestContext[Any, Any]
ExecutorOf = Callable[[McpContext], Executor]
CallIdOf = Callable[[McpContext, Any], str | None]
"""Returns the name by which a later message can cancel a request. Takes the id of the request."""

SESSION_HEADER = "mcp-session-id"
RESOURCE_NOT_FOUND = -32002
"""The code of an unknown resource up to revision 2025-11-25. Later revisions use `INVALID_PARAMS`."""
_MISSING_CODES = ("not_found", "not_ended")
LIST_TTL_MS = 60_000
URI_QUOTED_MAX = 4096
"""The number of characters of a URI that an error repeats."""


def create_server(openapi: Schema, executor_of: ExecutorOf, call_id_of: CallIdOf) -> Server[Any]:
    """Return the server. `openapi` describes the API that the executors offer."""
    entries = {entry.tool.name: entry for entry in create_tools(openapi)}
    handlers = _Handlers(entries, executor_of, call_id_of)
    server: Server[Any] = Server(
        "python-executor",
        version=openapi["info"]["version"],
        title="python-executor",
        instructions=descriptions.instructions(ApiSchemas(openapi)),
        cache_hints={
            "tools/list": CacheHint(ttl_ms=LIST_TTL_MS),
            "resources/templates/list": CacheHint(ttl_ms=LIST_TTL_MS),
        },
        get_tool_input_schema=lambda name: entries[name].tool.input_schema if name in entries else None,
        on_list_tools=handlers.list_tools,
        on_call_tool=handlers.call_tool,
        on_list_resources=handlers.list_resources_page,
        on_list_resource_templates=handlers.list_templates,
        on_read_resource=handlers.read,
    )
    server.add_notification_handler("notifications/cancelled", CancelledNotificationParams, handlers.cancel)
    server.middleware.clear()  # traces, which nothing collects
    return server


@frozen
class _Handlers:
    """The handlers of the methods that clients call."""

    _entries: Mapping[str, ToolEntry]
    _executor_of: ExecutorOf
    _call_id_of: CallIdOf

    async def list_tools(self, _: McpContext, __: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=[entry.tool for entry in self._entries.values()])

    async def call_tool(self, context: McpContext, params: CallToolRequestParams) -> CallToolResult:
        entry = self._entries.get(params.name)
        if entry is None:
            raise MCPError(
                INVALID_PARAMS, f"unknown tool {params.name[:100]!r}; known are {', '.join(self._entries)}"
            )
        with _hide_internal_errors():
            return await self._call(entry, context, params.arguments or {})

    async def _call(self, entry: ToolEntry, context: McpContext, arguments: dict[str, Any]) -> CallToolResult:
        schema = entry.tool.input_schema
        arguments = without_nulls(arguments, schema)
        if (mistake := await check_arguments(arguments, schema)) is not None:
            return _rejected(mistake)
        async with Progress(context).sending() as on_progress:
            call = Call(
                executor=self._executor_of(context),
                arguments=with_whole_numbers(arguments, schema),
                call_id=self._call_id_of(context, context.request_id),
                on_progress=on_progress,
            )
            try:
                return await entry.run(call)
            except ToolError as error:
                return _rejected(str(error))

    async def list_resources_page(
        self, context: McpContext, params: PaginatedRequestParams | None
    ) -> ListResourcesResult:
        cursor = params.cursor if params else None
        with _hide_internal_errors():
            try:
                resources, next_cursor = await list_resources(self._executor_of(context), cursor)
            except ToolError as error:
                raise MCPError(INVALID_PARAMS, str(error)) from error
        return ListResourcesResult(resources=resources, next_cursor=next_cursor)

    async def list_templates(
        self, _: McpContext, __: PaginatedRequestParams | None
    ) -> ListResourceTemplatesResult:
        return ListResourceTemplatesResult(resource_templates=list(TEMPLATES))

    async def read(self, context: McpContext, params: ReadResourceRequestParams) -> ReadResourceResult:
        uri = str(params.uri)
        with _hide_internal_errors():
            try:
                return ReadResourceResult(contents=[await read_resource(self._executor_of(context), uri)])
            except (UnknownResource, ToolError) as error:
                code = _code_of(error, context.protocol_version)
                raise MCPError(code, str(error), {"uri": uri[:URI_QUOTED_MAX]}) from error

    async def cancel(self, context: McpContext, params: CancelledNotificationParams) -> None:
        call_id = self._call_id_of(context, params.request_id)
        if call_id is None:
            return
        # The transport ends this task as soon as it has acknowledged the notification.
        with anyio.CancelScope(shield=True):
            await self._executor_of(context).cancel(call_id)


@contextmanager
def _hide_internal_errors() -> Iterator[None]:
    """Log an unexpected error, and raise one without its text: the SDK sends the text of any exception to clients."""
    try:
        yield
    except MCPError:
        raise
    except Exception as error:
        logger.exception("MCP request failed")
        raise MCPError(INTERNAL_ERROR, "internal server error; see the server log") from error


def _rejected(message: str) -> CallToolResult:
    """Return an error as a result of the tool, so that the model sees it and can correct its arguments."""
    return CallToolResult(content=[TextContent(text=message)], is_error=True)


def _code_of(error: Exception, version: str) -> int:
    if isinstance(error, ToolError) and error.code not in _MISSING_CODES:
        return INTERNAL_ERROR if error.code in ("internal", "unavailable") else INVALID_PARAMS
    return INVALID_PARAMS if version in MODERN_PROTOCOL_VERSIONS else RESOURCE_NOT_FOUND
