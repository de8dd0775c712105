"""Send requests over one pooled HTTP session, retry where it is safe, and raise typed errors."""

from __future__ import annotations

import asyncio
import os
import re
import ssl
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohttp
import anyio
from attrs import define, field

from .arguments import text
from .content import Content
from .errors import (
    ApiError,
    ClientClosed,
    ConnectionFailed,
    InvalidAnswer,
    QueueFull,
    Unavailable,
    error_from_response,
)
from .fork import reset_after_fork
from .json_parser import parse_json
from .multipart import Upload
from .requests import Request

_CONNECT_SECONDS = 10.0
_ERROR_BYTES_MAX = 1024 * 1024
_ERROR_SECONDS = 10.0
"""The body of an error response is read up to these bounds: its status is enough."""

T = TypeVar("T")


@define
class Response:
    """A successful response whose body has not been read yet."""

    url: str
    _response: aiohttp.ClientResponse
    _body: Upload | Content | None

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self._response.status

    @property
    def content_type(self) -> str:
        """The media type, without parameters."""
        return self._response.content_type

    def close(self) -> None:
        """Close the response, and its connection if the body was not read to its end."""
        self._response.close()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives. Raise ConnectionFailed if the connection is lost."""
        try:
            async for chunk in self._response.content.iter_any():
                yield chunk
        except (aiohttp.ClientError, OSError) as error:
            failure = _error_for_caller(self.url, error, self._body)
            raise failure from failure.__cause__

    async def json(self) -> Any:
        """Parse the body as JSON. Raise InvalidAnswer if it is not JSON."""
        body = b"".join([chunk async for chunk in self.chunks()])
        try:
            return parse_json(body)
        except ValueError as error:
            raise self.invalid(repr(body[:100])) from error

    def invalid(self, sent: str) -> InvalidAnswer:
        """Return the error for a body that is not what was requested."""
        return InvalidAnswer(f"{self.url} is not a python-executor server: it sent {sent}")


def _is_server_url(address: str) -> bool:
    """Return True if requests can be sent to paths below this URL."""
    try:
        url = urlsplit(address)
        is_whole = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:  # of a malformed IPv6 address or port
        return False
    return is_whole and not (url.query or url.fragment or re.search(r"\s", address))


def _check_token(token: str) -> None:
    """Raise ValueError if the token cannot be sent in a header. The message does not repeat it."""
    if re.search(r"[\x00-\x1f\x7f]", token):
        raise ValueError("invalid token: it contains a line break or another control character")


class _Connector(aiohttp.TCPConnector):
    """Closes its connections only in the process that has opened them.

    A child process shares the parent's epoll object. Closing an inherited connection there removes it from this object,
    and the parent waits forever for the next response."""

    def __init__(self) -> None:
        # Each long poll holds a connection, so a limit would make them wait for each other.
        super().__init__(limit=0)
        self._process = os.getpid()

    def __del__(self, _warnings: Any = warnings) -> None:
        if self._process == os.getpid():
            super().__del__(_warnings)


@define(eq=False)
class Transport:
    """Send requests to one server. `base_url` may contain a path; a trailing slash is ignored."""

    base_url: str
    token: str | None = field(default=None, repr=False)
    _sessions: dict[asyncio.AbstractEventLoop, aiohttp.ClientSession] = field(factory=dict, init=False)
    _is_closed: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        if not _is_server_url(text("base_url", self.base_url)):
            raise ValueError(f"invalid server URL '{self.base_url}': it must look like http://host:8080")
        if self.token is not None:
            _check_token(text("token", self.token))
        self.base_url = self.base_url.rstrip("/")
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Forget all connections, which belong to the parent process."""
        for session in self._sessions.values():
            session.detach()
        self._sessions.clear()

    async def close(self) -> None:
        """Close all connections of this event loop, and refuse further requests."""
        self._is_closed = True
        session = self._sessions.pop(asyncio.get_running_loop(), None)
        if session is not None:
            await session.close()

    def check_open(self) -> None:
        """Raise ClientClosed if `close` was called."""
        if self._is_closed:
            raise ClientClosed("the client is closed; create another one")

    async def json(self, request: Request) -> Any:
        """Send a request and return the JSON of the response."""
        return await _retrying(request, partial(self._exchange, request))

    async def _exchange(self, request: Request) -> Any:
        response = await self._attempt(request)
        try:
            return await response.json()
        finally:
            response.close()

    @asynccontextmanager
    async def open(self, request: Request) -> AsyncIterator[Response]:
        """Send a request and yield the response; read its body inside the context.

        Raise a subclass of ApiError if the server reports an error, ConnectionFailed if it cannot be reached,
        and OSError or ValueError if the archive cannot be built.
        """
        response = await _retrying(request, partial(self._attempt, request))
        try:
            yield response
        finally:
            response.close()

    async def _attempt(self, request: Request) -> Response:
        upload = Upload(request.archive, request.metadata) if request.archive else None
        body = upload or request.content
        try:
            response = await self._open_session().request(
                request.method,
                self.base_url + request.path,
                params=request.query,
                headers=request.headers,
                json=request.json,
                data=upload.form() if upload else request.content and request.content.chunks(),
                timeout=aiohttp.ClientTimeout(sock_connect=_CONNECT_SECONDS, sock_read=request.idle_timeout),
                allow_redirects=False,  # a redirected POST would become a GET
            )
        except (aiohttp.ClientError, OSError) as error:
            failure = _error_for_caller(self.base_url, error, body)
            raise failure from failure.__cause__
        if 200 <= response.status < 300:
            return Response(self.base_url, response, body)
        raise error_from_response(response.status, response.headers, await _error_body(response, body))

    def _open_session(self) -> aiohttp.ClientSession:
        """Return the session of this event loop. A session cannot be used in another one."""
        self.check_open()
        loop = asyncio.get_running_loop()
        if loop not in self._sessions:
            for other in [other for other in self._sessions if other.is_closed()]:
                self._sessions.pop(other).detach()
            headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
            self._sessions[loop] = aiohttp.ClientSession(connector=_Connector(), headers=headers)
        return self._sessions[loop]


async def _retrying(request: Request, attempt: Callable[[], Awaitable[T]]) -> T:
    """Call `attempt` until it succeeds, or until the request may not be sent again."""
    pauses = request.retry.pauses()
    while True:
        try:
            return await attempt()
        except (ConnectionFailed, Unavailable, QueueFull) as error:
            pause = next(pauses, None)
            retry_after = error.retry_after if isinstance(error, ApiError) else None
            if pause is None or (retry_after is not None and retry_after > request.retry.longest):
                raise
        await anyio.sleep(max(pause, retry_after or 0))


async def _error_body(response: aiohttp.ClientResponse, body: Upload | Content | None) -> bytes:
    """Return the body of an error response, or the part of it that arrives within the bounds."""
    data = bytearray()
    try:
        with anyio.move_on_after(_ERROR_SECONDS):
            async for chunk in response.content.iter_any():
                data += chunk
                if len(data) > _ERROR_BYTES_MAX:
                    break
    except (aiohttp.ClientError, OSError):
        pass
    finally:
        response.release() if response.content.at_eof() and body is None else response.close()
    return bytes(data[:_ERROR_BYTES_MAX])


def _error_for_caller(url: str, error: Exception, body: Upload | Content | None) -> Exception:
    """Return the error of building the body if there is one, else a ConnectionFailed with the reason.

    Raise it from its own cause: the traceback of `error` would add sixty lines about the inside of aiohttp."""
    if body is not None and body.error is not None:
        return body.error
    return ConnectionFailed(url, _reason(error))


def _reason(error: Exception) -> str:
    match error:
        case aiohttp.ClientConnectorDNSError():
            return "the host name cannot be resolved"
        case aiohttp.ClientConnectorCertificateError(
            certificate_error=ssl.SSLCertVerificationError() as reason
        ):
            return f"its certificate is not trusted: {reason.verify_message}"
        case aiohttp.ClientConnectorSSLError(os_error=ssl.SSLError(reason=str() as reason)):
            return f"TLS failed ({reason.replace('_', ' ').lower()}); if the server has no TLS, use http://"
        case aiohttp.ClientConnectorError(os_error=OSError(errno=int() as number)):
            return os.strerror(number).lower()
        case aiohttp.ConnectionTimeoutError():
            return f"connecting timed out after {_CONNECT_SECONDS:g} s"
        case TimeoutError():
            return "the server stopped responding"
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientPayloadError() | ConnectionResetError():
            return "the connection was lost"
    return str(error) or type(error).__name__
