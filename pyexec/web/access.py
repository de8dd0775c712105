"""Around every request: what it is about, how it was answered, and how long that took."""

import logging
from collections.abc import Awaitable, Callable
from time import perf_counter

from aiohttp import web
from aiohttp.hdrs import METH_ALL

from pyexec.correlation import correlate
from pyexec.domain.ids import is_execution_id
from pyexec.measures import HTTP_REQUESTS, HTTP_SECONDS, Meter

logger = logging.getLogger(__name__)

METER = web.AppKey("meter", Meter)  # type: ignore[type-abstract]
ACCESS_LOG = web.AppKey("access_log", bool)
CALLER_GONE = 499
"""What is noted as the status where nobody waited for the answer."""
QUIET_ROUTES = frozenset({"/health", "/ready", "/metrics"})
"""Machines ask for them every few seconds."""


@web.middleware
async def note_access(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """The outermost of all: it sees what the caller sees."""
    named = request.match_info.get("id", "")
    correlate(named if is_execution_id(named) else "")
    begun = perf_counter()
    status, sent = CALLER_GONE, 0
    try:
        response = await handler(request)
        status, sent = response.status, _length(response)
        return response
    except web.HTTPException as answer:
        status, sent = answer.status, _length(answer)
        raise
    finally:
        _note(request, status, sent, perf_counter() - begun)


def _note(request: web.Request, status: int, sent: int, seconds: float) -> None:
    """By the route's template: a path holds what callers give."""
    method = request.method if request.method in METH_ALL else "other"
    resource = request.match_info.route.resource
    route = (resource.canonical.rstrip("/") or "/") if resource is not None else "unknown"
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
        logger.log(
            level, "%s %s %d, %.1f ms, %d bytes", method, route, status, seconds * 1000, sent,
            extra={"fields": fields},
        )  # fmt: skip


def _length(response: web.StreamResponse) -> int:
    """Bytes of the answer's body: sent so far where it streams, else about to be."""
    return response.body_length if response.prepared else (response.content_length or 0)
