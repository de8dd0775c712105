"""An HTTP server that limits its open connections: all of them, and those from one address.

A request on a connection above a limit is answered with an error, after which the connection is closed."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from attrs import frozen

REFUSED_MAX = 64
"""How many connections above a limit are open at the same time. Further ones are closed without an answer."""
REFUSED_SECONDS = 5.0
"""How long a connection above a limit may take to send its request."""
RETRY_AFTER = {"Retry-After": "5"}

_Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@frozen
class ConnectionLimits:
    """Maximum numbers of open connections. Behind a NAT, several clients have one address."""

    total: int
    per_address: int


class LimitedRunner(web.AppRunner):
    """Runs an application with limits on its connections."""

    def __init__(self, app: web.Application, limits: ConnectionLimits, **options: Any) -> None:
        super().__init__(app, **options)
        self._limits = limits

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _LimitedServer(
            self._limits,
            made.request_handler,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            **made._kwargs,
        )


class _LimitedServer(web.Server):
    def __init__(self, limits: ConnectionLimits, handler: _Handler, **options: Any) -> None:
        super().__init__(self._answer, **options)
        self._limits = limits
        self._handler = handler
        self._accepted: dict[RequestHandler, str] = {}
        self._by_address: Counter[str] = Counter()
        self._refused: dict[RequestHandler, HTTPStatus] = {}

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        address = str((transport.get_extra_info("peername") or ("",))[0])
        if self._by_address[address] >= self._limits.per_address:
            self._refuse(handler, transport, HTTPStatus.TOO_MANY_REQUESTS)
        elif len(self._accepted) >= self._limits.total:
            self._refuse(handler, transport, HTTPStatus.SERVICE_UNAVAILABLE)
        else:
            self._accepted[handler] = address
            self._by_address[address] += 1

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self._refused.pop(handler, None)
        address = self._accepted.pop(handler, None)
        if address is not None:
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]

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
