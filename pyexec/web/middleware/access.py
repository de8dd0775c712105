"""Around every request: what it is about, how it was answered, and how long that took."""

import logging
from collections.abc import Awaitable, Callable
from time import perf_counter

from aiohttp import web
from aiohttp.hdrs import METH_ALL

from pyexec.correlation import correlate
from pyexec.domain.ids import is_execution_id
from pyexec.logs import FIELDS
from pyexec.metrics import HTTP_REQUESTS, HTTP_SECONDS, Meter

logger = logging.getLogger(__name__)

METER = web.AppKey("meter", Meter)
ACCESS_LOG = web.AppKey("access_log", bool)
CALLER_GONE = 499
"""What is noted as the status where nobody waited for the answer."""
_ANSWERED = "pyexec.answered"
QUIET_ROUTES = frozenset({"/health", "/ready", "/metrics"})
"""Machines ask for them every few seconds."""

MODE_OF = {"/api/v1/exec/sync": "sync", "/api/v1/exec/async": "async", "/api/v1/eval": "eval"}
"""How an execution is asked for, by the route that takes it."""


@web.middleware
async def note_access(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Log and measure each request. It runs in the task of the handler, which may set the execution's id."""
    named = request.match_info.get("id", "")
    correlate(named if is_execution_id(named) else "", MODE_OF.get(_route(request), "none"))
    begun = perf_counter()
    status, sent = CALLER_GONE, 0
    try:
        response = await handler(request)
        status, sent = response.status, _length(response)
        return response
    except web.HTTPException as error:
        status, sent = error.status, _length(error)
        raise
    finally:
        if status == CALLER_GONE and (answer := request.get(_ANSWERED)) is not None:
            status, sent = answer.status, _length(answer)
        _note(request, status, sent, perf_counter() - begun)


def note_answered(request: web.Request, response: web.StreamResponse) -> None:
    """All of a streamed answer has been written: a caller who has it may go at once, and then has not hung up."""
    request[_ANSWERED] = response


def _note(request: web.Request, status: int, sent: int, seconds: float) -> None:
    """By the route's template: a path holds what callers give."""
    method = request.method if request.method in METH_ALL else "other"
    route = _route(request)
    meter = request.app[METER]
    meter.count(HTTP_REQUESTS, method, route, str(status))
    meter.observe(HTTP_SECONDS, seconds, route)
    level = logging.DEBUG if route in QUIET_ROUTES else logging.INFO
    if request.app[ACCESS_LOG] and logger.isEnabledFor(level):
        fields = {
            "method": method,
            "route": route,
            "status": status,
            "duration_ms": round(seconds * 1000, 3),
            "bytes": sent,
        }
        shown = f"{method} {route} {status}, {seconds * 1000:.1f} ms, {sent} bytes"
        logger.log(level, "%s", shown, extra={FIELDS: fields})


def _route(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return "unknown" if resource is None else resource.canonical.rstrip("/")


def _length(response: web.StreamResponse) -> int:
    """Bytes of the answer's body, about to be sent; where it streams, all that was, with its head."""
    return response.body_length if response.prepared else (response.content_length or 0)
