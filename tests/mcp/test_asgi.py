"""Test the adapter between aiohttp and an ASGI application."""

from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from pyexec.web.mcp.asgi import Receive, Send, serve_asgi


async def test_a_client_that_disconnects_at_the_end_is_no_error_of_the_application() -> None:
    request = make_mocked_request("POST", "/mcp")
    ended = []

    async def write_eof(_: bytes = b"") -> None:
        raise ConnectionResetError("closing transport")

    request._payload_writer.write_eof = write_eof  # type: ignore[method-assign]

    async def app(_: Any, __: Receive, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        ended.append(True)

    with pytest.raises(ConnectionResetError):
        await serve_asgi(app, request, b"", {})
    assert ended


async def test_an_application_without_a_response_is_an_error() -> None:
    async def app(*_: Any) -> None:
        pass

    with pytest.raises(RuntimeError):
        await serve_asgi(app, make_mocked_request("POST", "/mcp"), b"", {})


async def test_a_whole_response_has_its_length() -> None:
    async def app(_: Any, receive: Receive, send: Send) -> None:
        body = (await receive())["body"]
        await send({"type": "http.response.start", "status": 202, "headers": [(b"x-own", b"1")]})
        await send({"type": "http.response.body", "body": body})

    response = await serve_asgi(app, make_mocked_request("POST", "/mcp"), b"body", {})
    assert isinstance(response, web.Response)
    assert (response.status, response.body, response.headers["x-own"]) == (202, b"body", "1")
