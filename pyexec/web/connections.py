"""Connections: JSON for requests that cannot be parsed, unread bodies, broken transfers, and repeated slashes."""

import logging
import re
import socket
import struct
from collections.abc import Awaitable, Callable
from functools import partial
from http import HTTPStatus

import anyio
from aiohttp import HttpVersion11, web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.web_protocol import RequestHandler
from yarl import URL

from pyexec.errors import shorten
from pyexec.web.context import Handler

BaseHandler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
logger = logging.getLogger(__name__)

DRAIN_SECONDS = 30.0
DRAIN_BYTES = 1024 * 1024 * 1024
"""How long, and how much, of a body is read after its request has been answered."""
DRAIN_IDLE_SECONDS = 10.0
"""How long the sender of such a body may pause."""
SERVER_NAME = "python-executor"
"""Value of the header `Server`. aiohttp's default has the versions of Python and aiohttp."""
_RESPONSE = web.RequestKey("begun_response", web.StreamResponse)
_CONTENT_SECURITY_POLICY = "default-src 'none'; frame-ancestors 'none'"
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_SLASHES = re.compile("//+")
_TOO_MANY_HEADERS = "Too many headers"


class HttpRunner(web.AppRunner):
    """Runs the application with `_Connection` for each connection."""

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(
            partial(_answer, made.request_handler),
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            **made._kwargs,
        )


async def _answer(handler: BaseHandler, request: web.BaseRequest) -> web.StreamResponse:
    """Handle a request. Reject an unknown `Expect` header in JSON; aiohttp would reject it in plain text."""
    expected = request.headers.get("Expect", "100-continue")
    if expected and expected.lower() != "100-continue" and request.version == HttpVersion11:
        text = f"the header Expect: {shorten(expected)} is not supported; the only value is 100-continue"
        return _rejection(HTTPStatus.EXPECTATION_FAILED, text)
    return await handler(request)


def _rejection(status: HTTPStatus, text: str, code: str | None = None) -> web.Response:
    """Return an error as JSON, after which the connection is closed."""
    code = code or status.phrase.lower().replace(" ", "_")
    response = web.json_response({"error": text, "code": code}, status=status)
    _add_headers(response)
    response.force_close()
    return response


class _Server(web.Server):
    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class _Connection(RequestHandler):
    """A connection that answers malformed requests in JSON, and logs no stack trace for a mistake of the client."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if isinstance(exc, ConnectionError):
            raise exc
        if not isinstance(exc, HttpProcessingError):
            super().handle_error(request, status, exc, message)  # logs the error
            return _rejection(HTTPStatus(status), "internal server error; see the server log", "internal")
        if isinstance(exc, LineTooLong) or exc.message.startswith(_TOO_MANY_HEADERS):
            answer = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            text = (
                f"the request line and each header may have at most {self.max_field_size} bytes, "
                f"and there may be at most {self.max_headers} headers"
            )
        else:
            answer, text = HTTPStatus.BAD_REQUEST, "the request is not valid HTTP/1.1"
        logger.info("request from %s rejected: %s", request.remote, text)
        return _rejection(answer, text)


class BrokenTransfer(ConnectionAbortedError):
    """The response has begun, and cannot be completed. `status` is that of the error."""

    def __init__(self, status: int) -> None:
        super().__init__("the response cannot be completed")
        self.status = status


async def record_response(request: web.Request, response: web.StreamResponse) -> None:
    """Record that the headers of the response are about to be sent; a hook of the application."""
    _add_headers(response)
    request[_RESPONSE] = response


def _add_headers(response: web.StreamResponse) -> None:
    """Add the headers of every response.

    Responses contain text of untrusted programs, so no browser may guess a type other than the declared one, and a
    response without a policy of its own may load and execute nothing."""
    response.headers["Server"] = SERVER_NAME
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers.setdefault("Content-Security-Policy", _CONTENT_SECURITY_POLICY)


def has_begun(request: web.Request) -> bool:
    """Return True if the headers of the response have been sent."""
    return _RESPONSE in request


def abort_transfer(request: web.Request) -> None:
    """Close the connection so that the client sees a broken transfer instead of a complete response.

    The end of the connection says that to all clients, unless it is also the end of the body, as in HTTP/1.0. Then
    the connection is reset."""
    transport, response = request.transport, request[_RESPONSE]
    if transport is None:
        return
    connection = transport.get_extra_info("socket")
    if request.version < HttpVersion11 and response.content_length is None and connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()


@web.middleware
async def drain_body(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Read the rest of a body that the handler did not read, after the response has been sent.

    Many clients read the response only after they have sent the whole request. If the connection were closed before,
    they would report a broken connection instead of the reason of the rejection."""
    response = await handler(request)
    if request.content.is_eof() or request.transport is None:
        return response
    await response.prepare(request)
    await response.write_eof()
    drained = 0
    with anyio.move_on_after(DRAIN_SECONDS):
        try:
            while drained < DRAIN_BYTES and (chunk := await _read_some(request)):
                drained += len(chunk)
        except (web.RequestPayloadError, HttpProcessingError, ConnectionError) as error:
            logger.debug("the rest of a rejected body is malformed: %s", error)
    return response


async def _read_some(request: web.Request) -> bytes:
    """Return bytes of the body; none at its end, or if the sender pauses for too long."""
    with anyio.move_on_after(DRAIN_IDLE_SECONDS):
        return await request.content.readany()
    return b""


@web.middleware
async def collapse_slashes(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Handle `//api/v1/eval` as `/api/v1/eval`: clients join a base URL and a path in different ways."""
    path = request.rel_url.raw_path
    if "//" not in path:
        return await handler(request)
    url = URL.build(path=_SLASHES.sub("/", path), query_string=request.rel_url.raw_query_string, encoded=True)
    return await request.app._handle(request.clone(rel_url=url))
