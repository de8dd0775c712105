"""An HTTP server that limits its open connections, in total and from one address.

It answers the first request on a connection above a limit with an error, and closes the connection."""

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from attrs import frozen

REFUSED_MAX = 64
"""Maximum number of open connections above a limit. Further ones are closed without an answer."""
REFUSED_SECONDS = 5.0
"""After this time, a connection above a limit is closed, even if it has sent no request."""
RETRY_AFTER = {"Retry-After": "5"}
"""The header of a response that rejects a request because of a limit."""

_Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@frozen
class ConnectionLimits:
    """Maximum numbers of open connections. Behind a NAT, several clients have one address."""

    total: int
    per_address: int


class LimitedServer(web.Server):
    """Answers requests with `handler`, on connections within the limits only."""

    def __init__(self, handler: _Handler, limits: ConnectionLimits, **options: Any) -> None:
        super().__init__(self._answer, **options)
        self._handler = handler
        self._limits = limits
        self._accepted: dict[RequestHandler, str] = {}
        """The address of each connection within the limits."""
        self._refused: dict[RequestHandler, HTTPStatus] = {}
        """The status that answers each connection above a limit."""

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        address = str((transport.get_extra_info("peername") or ("",))[0])
        if list(self._accepted.values()).count(address) >= self._limits.per_address:
            self._refuse(handler, transport, HTTPStatus.TOO_MANY_REQUESTS)
        elif len(self._accepted) >= self._limits.total:
            self._refuse(handler, transport, HTTPStatus.SERVICE_UNAVAILABLE)
        else:
            self._accepted[handler] = address

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self._refused.pop(handler, None)
        self._accepted.pop(handler, None)

    def _refuse(self, handler: RequestHandler, transport: asyncio.Transport, status: HTTPStatus) -> None:
        if len(self._refused) >= REFUSED_MAX:
            transport.abort()
            return
        self._refused[handler] = status
        asyncio.get_running_loop().call_later(REFUSED_SECONDS, transport.abort)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        status = self._refused.get(request.protocol)
        if status is None:
            return await self._handler(request)
        if status is HTTPStatus.TOO_MANY_REQUESTS:
            limit = f"{self._limits.per_address} connections from {request.remote}"
        else:
            limit = f"{self._limits.total} connections"
        text = f"too many connections: {limit} are open"
        response = web.Response(status=status, text=text, headers=RETRY_AFTER)
        response.force_close()
        return response
