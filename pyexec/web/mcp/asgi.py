"""Serve an aiohttp request by an ASGI application: the SDK's HTTP transport is one."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import anyio
from aiohttp import hdrs, web

from pyexec.web.middleware import CountedResponse, mark_complete

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_CONNECTION_HEADERS = frozenset({hdrs.CONNECTION.lower(), hdrs.CONTENT_LENGTH.lower()})
"""aiohttp itself sends these."""


async def serve_asgi(
    app: App, request: web.Request, body: bytes, extensions: MutableMapping[str, Any]
) -> web.StreamResponse:
    """Serve the request, whose body has been read, and return the response. `extensions` are added to the scope.

    If the client disconnects, aiohttp cancels the request. So the application needs no message about that."""
    scope = {**_scope(request), **extensions}
    bodies = [body]
    response = _Response(request)

    async def receive() -> Message:
        if not bodies:
            await anyio.sleep_forever()
        return {"type": "http.request", "body": bodies.pop(), "more_body": False}

    await app(scope, receive, response.send)
    return response.result()


def _scope(request: web.Request) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": f"{request.version.major}.{request.version.minor}",
        "method": request.method,
        "scheme": request.scheme,
        "path": request.path,
        "raw_path": request.rel_url.raw_path.encode(),
        "query_string": request.rel_url.raw_query_string.encode(),
        "root_path": "",
        "headers": [(name.lower(), value) for name, value in request.raw_headers],
        "client": (request.remote, 0) if request.remote else None,
        "server": None,
    }


class _Response:
    """The response that the application sends: whole in one message, or as a stream."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._status = 0
        self._headers: list[tuple[str, str]] = []
        self._stream: web.StreamResponse | None = None
        self._result: web.StreamResponse | None = None
        self._is_disconnected = False

    async def send(self, message: Message) -> None:
        """Send a message. It has no effect if the client has disconnected: the SDK would log an error."""
        try:
            if message["type"] == "http.response.start":
                await self._start(message)
            elif message["type"] == "http.response.body":
                await self._write(message.get("body", b""), has_more=message.get("more_body", False))
        except ConnectionError:
            self._is_disconnected = True

    def result(self) -> web.StreamResponse:
        """Return the complete response.

        Raises `ConnectionResetError` if the client has disconnected, and `RuntimeError` if the application sent
        none."""
        if self._is_disconnected:
            raise ConnectionResetError("the client has disconnected")
        if self._result is None:
            raise RuntimeError("the ASGI application has sent no complete response")
        return self._result

    async def _start(self, message: Message) -> None:
        pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in message["headers"]]
        self._status = message["status"]
        self._headers = [(name, value) for name, value in pairs if name.lower() not in _CONNECTION_HEADERS]
        if dict(self._headers).get("content-type", "").startswith("text/event-stream"):
            await self._open_stream()

    async def _open_stream(self) -> web.StreamResponse:
        stream = CountedResponse(status=self._status)
        stream.headers.extend(self._headers)
        await stream.prepare(self._request)
        self._stream = stream
        return stream

    async def _write(self, body: bytes, *, has_more: bool) -> None:
        if self._stream is None and not has_more:
            self._result = web.Response(status=self._status, body=body)
            self._result.headers.extend(self._headers)
            return
        stream = self._stream or await self._open_stream()
        if body:
            await stream.write(body)
        if not has_more:
            mark_complete(self._request, stream)
            await stream.write_eof()
            self._result = stream
