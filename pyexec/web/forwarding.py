"""Forward a request to the replica that must handle it: only the owner of a session can."""

import logging
from collections.abc import AsyncIterator

from aiohttp import web

from pyexec.errors import InvalidRequest, OwnedElsewhere, SessionMoving, Unavailable
from pyexec.ports import REPLICA_HEADER, PeerRequest
from pyexec.web.connections import has_begun
from pyexec.web.context import BODY, Handler, get_context
from pyexec.web.multipart import body_chunks
from pyexec.web.streaming import send_stream

logger = logging.getLogger(__name__)

REQUEST_HEADERS = (
    "Authorization",
    "Accept",
    "Content-Type",
    "Content-Length",
    "Content-Encoding",
    "Idempotency-Key",
    "Last-Event-ID",
    "traceparent",
    "tracestate",
)
RESPONSE_HEADERS = frozenset(
    {
        "content-type",
        "content-length",
        "content-disposition",
        "cache-control",
        "location",
        "retry-after",
        "traceparent",
        "tracestate",
    }
)


@web.middleware
async def forward_to_owner(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Forward a request whose handler raises `OwnedElsewhere`.

    A handler that needs the body asks for the owner before it reads the body, or keeps the body. A request is forwarded
    once."""
    try:
        return await handler(request)
    except OwnedElsewhere as elsewhere:
        is_read = request.content.at_eof() and request.content.total_bytes > 0 and BODY not in request
        if REPLICA_HEADER in request.headers or is_read or has_begun(request):
            raise SessionMoving from elsewhere
        return await _forward(request, elsewhere.owner)


async def _forward(request: web.Request, replica: str) -> web.StreamResponse:
    logger.debug("forwarding %s %s to %s", request.method, request.path, replica)
    body = _RequestBody(request) if request.body_exists else None
    headers = [(name, value) for name in REQUEST_HEADERS for value in request.headers.getall(name, ())]
    forwarded = PeerRequest(
        method=request.method,
        path=request.rel_url.raw_path_qs,
        headers=headers,
        body=None if body is None else body.chunks(),
    )
    try:
        async with get_context(request).peers.forward(replica, forwarded) as response:
            kept = {name: value for name, value in response.headers.items() if _is_kept(name)}
            return await send_stream(request, kept, response.chunks, status=response.status)
    except Unavailable:
        if body is not None and body.error is not None:
            raise body.error from None
        raise


def _is_kept(name: str) -> bool:
    return name.lower() in RESPONSE_HEADERS or name.lower().startswith("x-")


class _RequestBody:
    """The body of a request. It keeps the error of a read, which aiohttp's client reports as a lost connection."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self.error: InvalidRequest | None = None

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives, or as the handler has kept it."""
        if BODY in self._request:
            yield self._request[BODY]
            return
        try:
            async for chunk in body_chunks(self._request):
                yield chunk
        except InvalidRequest as error:
            self.error = error
            raise
