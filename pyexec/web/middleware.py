"""Middleware: one task per request, access log and metrics, access control. Errors are in error_responses.py."""

import logging
from http import HTTPStatus
from time import perf_counter
from urllib.parse import urlsplit

import anyio
from aiohttp import web
from aiohttp.hdrs import METH_ALL

from pyexec.correlation import correlate, correlate_tenant, correlate_trace
from pyexec.domain.ids import is_execution_id
from pyexec.domain.tenants import DEFAULT_TENANT
from pyexec.domain.trace_context import parse_trace_context
from pyexec.logs import FIELDS
from pyexec.metrics import HTTP_REQUESTS, HTTP_SECONDS
from pyexec.web.connections import BrokenTransfer
from pyexec.web.context import ACCESS_LOG, METER, SERVER_STATE, TENANT, TENANTS, Handler, read_token
from pyexec.web.error_responses import forget_frames, json_error
from pyexec.web.handlers import documentation

access_logger = logging.getLogger("pyexec.web.access")
"""Operators filter by this name, so it does not depend on the name of this module."""

CLIENT_CLOSED_REQUEST = 499
"""Status in the access log and metrics if the client disconnects before the response is complete."""
_COMPLETE = web.RequestKey("complete response", web.StreamResponse)
QUIET_ROUTES = frozenset({"/health", "/ready", "/metrics", "/api/v1/cluster"})
"""Polled every few seconds, and therefore logged at level DEBUG."""
MODE_OF_ROUTE = {
    "/api/v1/exec/sync": "sync",
    "/api/v1/exec/async": "async",
    "/api/v1/eval": "eval",
    "/api/v1/sessions/{id}/eval": "session",
    "/api/v1/sessions/{id}/eval/async": "session",
    "/mcp": "mcp",
}

PUBLIC_PATHS = frozenset({"", "/health", "/ready", "/docs", "/openapi.json", *documentation.PATHS})
"""Paths that need no token: health checks, and the pages that a browser or an agent opens before it has one."""
SAFE_METHODS = ("GET", "HEAD")
"""Methods that change nothing."""


@web.middleware
async def run_in_task(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Handle the request in a task of its own, so that a disconnect cancels it through an anyio cancel scope.

    If the client disconnects, aiohttp cancels its own task directly, and a shielded scope does not prevent that. The
    task could end between a commit and the steps that must follow it."""
    responses: list[web.StreamResponse] = []
    errors: list[Exception] = []

    async def handle() -> None:
        try:
            responses.append(await handler(request))
        except Exception as error:  # noqa: BLE001  raised below, outside of the task group's exception group
            errors.append(forget_frames(error) if isinstance(error, ConnectionError) else error)
        except anyio.get_cancelled_exc_class() as cancelled:
            forget_frames(cancelled)
            raise

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(handle, name=f"{request.method} {request.path}")
    if errors:
        raise errors.pop()
    return responses.pop()


@web.middleware
async def log_access(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Log and count every request, with the status and size that the client sees."""
    execution_id = request.match_info.get("id", "")
    mode = MODE_OF_ROUTE.get(_route(request), "none")
    correlate(execution_id if is_execution_id(execution_id) else "", mode)
    _read_trace_context(request)
    started = perf_counter()
    status, size = CLIENT_CLOSED_REQUEST, 0
    try:
        response = await handler(request)
        status, size = response.status, _size(request, response)
        return response
    except web.HTTPException as error:
        status, size = error.status, _size(request, error)
        raise
    except BrokenTransfer as error:
        status = error.status
        raise
    finally:
        if status == CLIENT_CLOSED_REQUEST and (complete := request.get(_COMPLETE)) is not None:
            status, size = complete.status, _size(request, complete)
        _record(request, status, size, perf_counter() - started)


def _read_trace_context(request: web.Request) -> None:
    """Correlate the request with the caller's trace, if this server exports traces."""
    context = request.app[SERVER_STATE].context
    if context is None or context.traces is None:
        return
    headers = request.headers
    caller = parse_trace_context(headers.getall("traceparent", ()), headers.getall("tracestate", ()))
    if caller is not None:
        correlate_trace(caller.traceparent, caller.tracestate)


class CountedResponse(web.StreamResponse):
    """Counts the bytes of the body that have been sent: aiohttp counts headers and chunk sizes too."""

    body_bytes = 0

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send a part of the body."""
        await super().write(data)
        self.body_bytes += len(data)


def mark_complete(request: web.Request, response: web.StreamResponse) -> None:
    """Record that a streamed response is fully written.

    A client may disconnect as soon as it has the last byte; that does not count as a closed request."""
    request[_COMPLETE] = response


def _record(request: web.Request, status: int, size: int, seconds: float) -> None:
    """Log and count a request under its route's template: the path itself contains input of the client."""
    method = request.method if request.method in METH_ALL else "other"
    route = _route(request)
    meter = request.app[METER]
    meter.count(HTTP_REQUESTS, method, route, str(status))
    meter.observe(HTTP_SECONDS, seconds, route)
    level = logging.DEBUG if route in QUIET_ROUTES else logging.INFO
    if request.app[ACCESS_LOG] and access_logger.isEnabledFor(level):
        fields = {
            "method": method,
            "route": route,
            "status": status,
            "duration_ms": round(seconds * 1000, 3),
            "bytes": size,
        }
        text = f"{method} {route} {status}, {seconds * 1000:.1f} ms, {size} bytes"
        access_logger.log(level, "%s", text, extra={FIELDS: fields})


def _route(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return "unknown" if resource is None else resource.canonical.rstrip("/") or "/"


def _size(request: web.Request, response: web.StreamResponse) -> int:
    """Return the bytes of the body; of a streamed response, those sent so far."""
    if isinstance(response, CountedResponse):
        return response.body_bytes
    return 0 if request.method == "HEAD" else (response.content_length or 0)


@web.middleware
async def control_access(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Require a token and find its tenant, if tokens are configured; otherwise block cross-site requests (CSRF)."""
    tenants = request.app[TENANTS]
    if not tenants.requires_token:
        if _is_cross_site(request):
            text = "cross-site request blocked; configure API tokens to allow it"
            return json_error(HTTPStatus.FORBIDDEN, text, "cross_site")
        correlate_tenant(DEFAULT_TENANT)
    elif not is_public(request.path):
        token = read_token(request)
        tenant = None if token is None else tenants.authenticate(token)
        if tenant is None:
            text = "API token missing or invalid; send it as Authorization: Bearer TOKEN"
            response = json_error(HTTPStatus.UNAUTHORIZED, text, "unauthorized")
            response.headers["WWW-Authenticate"] = "Bearer"
            return response
        request[TENANT] = tenant
        correlate_tenant(tenant)
    return await handler(request)


def is_public(path: str) -> bool:
    """Return True if a path needs no token."""
    return path.rstrip("/") in PUBLIC_PATHS or path.startswith(("/docs/", "/console/"))


def _is_cross_site(request: web.Request) -> bool:
    """Return True if this request could change something and a browser sends it for a page of another site.

    Any page can make a browser send requests, even to servers that only this browser can reach. The page cannot read
    the response, but the request takes effect. Other clients send neither `Sec-Fetch-Site` nor `Origin`."""
    if request.method in SAFE_METHODS:
        return False
    if (site := request.headers.get("Sec-Fetch-Site")) is not None:
        return site not in ("same-origin", "none")
    origin = request.headers.get("Origin")
    try:
        return origin is not None and urlsplit(origin).netloc != request.host
    except ValueError:
        return True
