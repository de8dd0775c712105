"""The endpoint `/mcp`."""

import gc
import ipaddress
from typing import Any

import anyio
import anyio.to_thread
from aiohttp import hdrs, web
from attrs import define, field
from yarl import URL

from pyexec.errors import InvalidRequest, TooLarge, quote
from pyexec.mcp.executor import EXECUTOR, MESSAGE
from pyexec.mcp.sdk import loading_sdk
from pyexec.web.context import TENANTS, get_context
from pyexec.web.error_responses import forget_frames
from pyexec.web.handlers.documentation import LazyDocument
from pyexec.web.mcp.asgi import App, serve_asgi
from pyexec.web.mcp.executor import ServiceExecutor, WaitingCancellations
from pyexec.web.multipart import read_body, reject_content_encoding
from pyexec.web.schemas import check_document

_INVALID_REQUEST = -32600
_PARSE_ERROR = -32700
_METHOD_NOT_FOUND = -32601
_ID_LENGTH_MAX = 255
_METHOD_LENGTH_MAX = 100
"""The SDK repeats the id of a request, and an unknown method, in full."""
_LARGE_BYTES = 1024 * 1024
"""The size of a body whose memory is freed at once, not by a later garbage collection."""


@define
class McpEndpoint:
    """Serves MCP over HTTP. The tools are made from the OpenAPI document."""

    _openapi: LazyDocument
    _app: App | None = None
    _loading: anyio.Lock = field(factory=anyio.Lock)
    _cancellations: WaitingCancellations = field(factory=WaitingCancellations)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one message of a client."""
        if not request.app[TENANTS].requires_token and _is_dns_rebinding(request):
            raise web.HTTPForbidden(
                text="a web page may use /mcp only at an IP address or at localhost; configure API tokens to allow it"
            )
        reject_content_encoding(request)
        try:
            body = await read_body(request)
        except InvalidRequest as error:
            return _rejection(error, _INVALID_REQUEST)
        try:
            message = await check_document(body, what="body")
        except InvalidRequest as error:
            return _rejection(error, _PARSE_ERROR)
        if not _has_valid_id(message):
            expected = f"id must be an integer, or a string of at most {_ID_LENGTH_MAX} characters"
            return _rejection(InvalidRequest(expected, field="id"), _INVALID_REQUEST)
        if long_method := _long_method(message):
            unknown = f"unknown method {quote(long_method)}"
            return _rejection(InvalidRequest(unknown, field="method"), _METHOD_NOT_FOUND)
        app = self._app or await self._load(get_context(request).limits.metadata_bytes_max)
        try:
            return await self._serve(app, request, body, message)
        finally:
            if len(body) >= _LARGE_BYTES:
                _collect_frames()

    async def _serve(self, app: App, request: web.Request, body: bytes, message: Any) -> web.StreamResponse:
        executor = ServiceExecutor(request, self._cancellations)
        disconnect: BaseExceptionGroup[ConnectionError]
        try:
            return await serve_asgi(app, request, body, {EXECUTOR: executor, MESSAGE: message})
        except* ConnectionError as errors:
            disconnect = errors
        # Raised here because Python 3.11.2 wraps an exception that is raised inside `except*` in a group.
        raise ConnectionResetError("the client has disconnected") from disconnect

    async def _load(self, body_bytes_max: int) -> App:
        """Load the SDK at the first use, in a thread: it takes more than a second, and most servers never need it."""
        async with self._loading:
            if self._app is None:
                openapi = await self._openapi.get()
                self._app = await anyio.to_thread.run_sync(_create_app, openapi, body_bytes_max)
            return self._app


def _create_app(openapi: dict[str, Any], body_bytes_max: int) -> App:
    with loading_sdk():
        from pyexec.mcp.http import HttpApp

    return HttpApp(openapi, body_bytes_max)


def _is_dns_rebinding(request: web.Request) -> bool:
    """Return True if the request may be DNS rebinding: a browser sends it, and addresses the server by a DNS name.

    The owner of a name can let it point to this server, and a page from there has the same origin then."""
    if hdrs.ORIGIN not in request.headers:
        return False
    try:
        host = URL.build(scheme="http", authority=request.host).host or ""
        ipaddress.ip_address(host)
    except ValueError:
        return request.host.partition(":")[0] != "localhost"
    return False


def _has_valid_id(message: Any) -> bool:
    """Return False for a request with an id that is too long, or of another type: the SDK takes it for a notification,
    and never answers."""
    if not isinstance(message, dict) or not {"id", "method"} <= message.keys():
        return True
    identity = message["id"]
    if isinstance(identity, str):
        return len(identity) <= _ID_LENGTH_MAX
    return isinstance(identity, int) and not isinstance(identity, bool)


def _long_method(message: Any) -> str | None:
    """Return the method of a request if it is longer than any that exists."""
    method = message.get("method") if isinstance(message, dict) else None
    return method if isinstance(method, str) and len(method) > _METHOD_LENGTH_MAX else None


def _collect_frames() -> None:
    """Free the frames that the SDK leaves in cycles with exceptions; they hold a request three times.

    After 24 requests of 15 MB, they took 1.1 GB (2026-11-28). They are young, so the oldest generation is left out."""
    gc.collect(1)


def _rejection(error: InvalidRequest, rpc_code: int) -> web.Response:
    """Return an error for a body that the SDK does not get, in the form that MCP clients show."""
    status = 413 if isinstance(error, TooLarge) else 400
    forget_frames(error)
    details = {"code": rpc_code, "message": str(error), "data": {"code": error.code}}
    return web.json_response({"jsonrpc": "2.0", "id": None, "error": details}, status=status)
