"""MCP over streamable HTTP, without state between requests: any replica answers any of them."""

from __future__ import annotations

import json
import logging
import uuid
from typing import Any

from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.inbound import MCP_PROTOCOL_VERSION_HEADER
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from pyexec.mcp.executor import EXECUTOR, MESSAGE, Executor
from pyexec.mcp.schemas import Schema
from pyexec.mcp.server import SESSION_HEADER, McpContext, create_server

_READING_TOOLS = frozenset({"read_output_file", "read_file", "list_files"})


class HttpApp:
    """The ASGI application. The scope of each request has the caller's executor at the key `EXECUTOR`, and the parsed
    body at the key `MESSAGE`."""

    def __init__(self, openapi: Schema, body_bytes_max: int) -> None:
        # The SDK logs the start and the end of each manager and of each transport, and each request has both.
        for name in ("streamable_http_manager", "streamable_http"):
            logging.getLogger(f"mcp.server.{name}").setLevel(logging.WARNING)
        self._server: Server[Any] = create_server(openapi, _executor_of, _call_id_of)
        self._body_bytes_max = body_bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. All its tasks end with it."""
        headers = {name for name, _ in scope["headers"]}
        opens_session = not headers & {SESSION_HEADER.encode(), MCP_PROTOCOL_VERSION_HEADER.encode()}
        manager = StreamableHTTPSessionManager(
            self._server,
            stateless=True,
            json_response=_is_reading(scope[MESSAGE]),
            max_request_body_size=self._body_bytes_max,
        )
        async with manager.run():
            await manager.handle_request(scope, receive, _with_session(send) if opens_session else send)


def _is_reading(message: Any) -> bool:
    """Return True for a request that reads a resource or files. It sends no progress, so its answer can be JSON.

    For earlier revisions, the SDK would send the answer as one event, and its client refuses events of more than 1 MiB
    (mcp 2.3)."""
    if not isinstance(message, dict):
        return False
    params = message.get("params")
    name = params.get("name") if isinstance(params, dict) else None
    match message.get("method"):
        case "resources/read":
            return True
        case "tools/call":
            return isinstance(name, str) and name in _READING_TOOLS
    return False


def _with_session(send: Send) -> Send:
    """Set a new MCP session id in the response to `initialize`, the only request that has no protocol version.

    The server stores nothing under this id. All clients number their requests from 1, and a cancellation is a separate
    request: the session id and the number together identify the call that it cancels."""

    async def send_with_session(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == 200:
            session = (SESSION_HEADER.encode(), uuid.uuid4().hex.encode())
            message = {**message, "headers": [*message["headers"], session]}
        await send(message)

    return send_with_session


def _executor_of(context: McpContext) -> Executor:
    executor: Executor = _request_of(context).scope[EXECUTOR]
    return executor


def _call_id_of(context: McpContext, request_id: Any) -> str | None:
    session = _request_of(context).headers.get(SESSION_HEADER)
    if session is None or request_id is None:
        return None
    return f"mcp {session} {json.dumps(request_id)}"  # the ids 1 and "1" differ


def _request_of(context: McpContext) -> Request:
    if not isinstance(context.request, Request):
        raise TypeError("a message over HTTP has no HTTP request")
    return context.request
