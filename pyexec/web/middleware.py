"""Middleware, outermost first: one task per request, access log and metrics, errors as JSON, access control."""

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
from pyexec.errors import (
    CorruptLog,
    EngineError,
    ExecutorError,
    ImageUnavailable,
    InvalidRequest,
    KeyReused,
    NotEnded,
    QueueFull,
    QueueTimeout,
    SessionEnded,
    SetupFailed,
    TooLarge,
    TooManySessions,
    Unavailable,
    UnknownExecution,
    UnknownFile,
    UnknownSession,
    UnsupportedArchive,
    shorten,
)
from pyexec.logs import FIELDS
from pyexec.metrics import HTTP_REQUESTS, HTTP_SECONDS
from pyexec.web.connections import BrokenTransfer, abort_transfer, has_begun
from pyexec.web.context import ACCESS_LOG, METER, SERVER_STATE, TENANT, TENANTS, Handler, read_token
from pyexec.web.handlers.pages import PAGES

logger = logging.getLogger(__name__)
access_logger = logging.getLogger("pyexec.web.access")
"""Operators filter by this name, so it does not depend on the name of this module."""

CLIENT_CLOSED_REQUEST = 499
"""Status in the access log and metrics if the client disconnects before the response is complete."""
_COMPLETE = web.RequestKey("complete response", web.StreamResponse)
SESSION_RETRY_SECONDS = 30
"""How long a client should wait before it tries again to open a session: sessions rarely close."""
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

_STATUS: tuple[tuple[type[ExecutorError], HTTPStatus], ...] = (
    (TooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (UnsupportedArchive, HTTPStatus.UNSUPPORTED_MEDIA_TYPE),
    (InvalidRequest, HTTPStatus.BAD_REQUEST),
    (UnknownExecution, HTTPStatus.NOT_FOUND),
    (UnknownFile, HTTPStatus.NOT_FOUND),
    (UnknownSession, HTTPStatus.NOT_FOUND),
    (SessionEnded, HTTPStatus.GONE),
    (NotEnded, HTTPStatus.CONFLICT),
    (KeyReused, HTTPStatus.CONFLICT),
    (QueueFull, HTTPStatus.TOO_MANY_REQUESTS),
    (TooManySessions, HTTPStatus.TOO_MANY_REQUESTS),
    (SetupFailed, HTTPStatus.BAD_REQUEST),
    (ImageUnavailable, HTTPStatus.BAD_REQUEST),
    (QueueTimeout, HTTPStatus.SERVICE_UNAVAILABLE),
    (EngineError, HTTPStatus.SERVICE_UNAVAILABLE),
    (Unavailable, HTTPStatus.SERVICE_UNAVAILABLE),
)
"""HTTP status of each error. The first match applies, so subclasses come before their base class."""

PUBLIC_PATHS = frozenset({"", "/health", "/ready", "/docs", "/openapi.json", *PAGES})
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
            errors.append(error)

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
        status, size = response.status, _size(response)
        return response
    except web.HTTPException as error:
        status, size = error.status, _size(error)
        raise
    except BrokenTransfer as error:
        status = error.status
        raise
    finally:
        if status == CLIENT_CLOSED_REQUEST and (complete := request.get(_COMPLETE)) is not None:
            status, size = complete.status, _size(complete)
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
    return "unknown" if resource is None else resource.canonical.rstrip("/")


def _size(response: web.StreamResponse) -> int:
    """Return the bytes of the body; of a streamed response, the bytes sent so far, headers included."""
    return response.body_length if response.prepared else (response.content_length or 0)


@web.middleware
async def handle_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn errors into JSON: `{"error": message, "code": snake_case, "field": name}`.

    An unexpected error is logged with its traceback; the client gets no details. If the response has begun, the
    connection is aborted instead: JSON in the middle of a body would be taken for a part of it."""
    try:
        return await handler(request)
    except ConnectionError:  # the client has disconnected
        raise
    except Exception as error:
        if has_begun(request):
            raise _abort(request, error) from error
        return _error_response(request, error)


def _abort(request: web.Request, error: Exception) -> BrokenTransfer:
    is_expected = isinstance(error, ExecutorError)
    logger.error(
        "%s %s: response aborted: %s",
        request.method,
        request.path,
        error,
        exc_info=None if is_expected else error,
    )
    abort_transfer(request)
    return BrokenTransfer(_status_of(error) if is_expected else HTTPStatus.INTERNAL_SERVER_ERROR)


def _error_response(request: web.Request, error: Exception) -> web.Response:
    if isinstance(error, ExecutorError):
        return _executor_error(error)
    if isinstance(error, web.HTTPException):
        if error.status < HTTPStatus.BAD_REQUEST:
            raise error
        return _http_error(request, error)
    logger.error("%s %s failed with an unexpected error", request.method, request.path, exc_info=error)
    text = "internal server error; see the server log"
    return _json(HTTPStatus.INTERNAL_SERVER_ERROR, text, "internal")


def _status_of(error: Exception) -> HTTPStatus:
    return next((s for kind, s in _STATUS if isinstance(error, kind)), HTTPStatus.INTERNAL_SERVER_ERROR)


def _executor_error(error: ExecutorError) -> web.Response:
    status = _status_of(error)
    if status is HTTPStatus.INTERNAL_SERVER_ERROR:
        traceback_of = None if isinstance(error, CorruptLog) else error
        logger.error("request failed: %s", error, exc_info=traceback_of)
    extra = {}
    if isinstance(error, InvalidRequest) and error.field is not None:
        extra["field"] = error.field
    if isinstance(error, Unavailable) and error.execution_id is not None:
        extra["execution_id"] = error.execution_id
    response = _json(status, str(error), error.code, **extra)
    if isinstance(error, QueueFull):
        response.headers["Retry-After"] = str(error.retry_after_seconds)
    elif isinstance(error, TooManySessions):
        response.headers["Retry-After"] = str(SESSION_RETRY_SECONDS)
    return response


def _http_error(request: web.Request, error: web.HTTPException) -> web.Response:
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        text = f"{shorten(request.path)} does not allow {shorten(request.method)}; allowed: {allowed}"
        response = _json(HTTPStatus.METHOD_NOT_ALLOWED, text, "method_not_allowed")
        response.headers["Allow"] = allowed
        return response
    if error.status == HTTPStatus.NOT_FOUND:
        return _json(HTTPStatus.NOT_FOUND, f"no endpoint at {shorten(request.path)}; see /docs", "not_found")
    phrase = HTTPStatus(error.status).phrase
    return _json(HTTPStatus(error.status), error.text or phrase, phrase.lower().replace(" ", "_"))


def _json(status: HTTPStatus, text: str, code: str, **extra: str) -> web.Response:
    return web.json_response({"error": text, "code": code, **extra}, status=status)


@web.middleware
async def control_access(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Require a token and find its tenant, if tokens are configured; otherwise block cross-site requests (CSRF)."""
    tenants = request.app[TENANTS]
    if not tenants.requires_token:
        if _is_cross_site(request):
            text = "cross-site request blocked; configure API tokens to allow it"
            return _json(HTTPStatus.FORBIDDEN, text, "cross_site")
        correlate_tenant(DEFAULT_TENANT)
    elif not is_public(request.path):
        token = read_token(request)
        tenant = None if token is None else tenants.authenticate(token)
        if tenant is None:
            text = "API token missing or invalid; send it as Authorization: Bearer TOKEN"
            response = _json(HTTPStatus.UNAUTHORIZED, text, "unauthorized")
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
