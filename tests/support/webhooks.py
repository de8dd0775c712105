"""A local receiver of webhooks, which answers as a test wants and keeps what it has received."""

import base64
import contextlib
import hashlib
import hmac
import json
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
from aiohttp import web
from attrs import define, field, frozen

SECRET = b"0123456789abcdef0123456789abcdef"
SECRET_TEXT = "whsec_" + base64.b64encode(SECRET).decode()
OLD_SECRET = b"abcdef0123456789abcdef0123456789"
OLD_SECRET_TEXT = "whsec_" + base64.b64encode(OLD_SECRET).decode()
PATIENCE_SECONDS = 60


@frozen
class Received:
    """One request to the receiver."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)

    def is_signed_by(self, secret: bytes) -> bool:
        """Return True if one of the signatures is that of the secret, as Standard Webhooks defines it."""
        signed = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}.".encode() + self.body
        digest = base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
        return f"v1,{digest}" in self.headers["webhook-signature"].split(" ")


@define
class Receiver:
    """A server at a loopback address. `answers` are the statuses of the next requests; after them, 204.

    A redirect leads to `location`."""

    port: int = 0
    answers: list[int] = field(factory=list)
    location: str = "/redirected"
    received: list[Received] = field(factory=list)
    _arrived: anyio.Event = field(factory=anyio.Event)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.received.append(Received(request.path_qs, dict(request.headers), body))
        arrived, self._arrived = self._arrived, anyio.Event()
        arrived.set()
        status = self.answers.pop(0) if self.answers else 204
        return web.Response(status=status, headers={"Location": self.location} if status == 302 else {})

    async def until_received(self, execution_id: str, times: int = 1) -> list[Received]:
        """Wait until the webhook of an execution has arrived this many times; return the requests."""
        with anyio.fail_after(PATIENCE_SECONDS):
            while True:
                arrived = self._arrived
                found = [each for each in self.received if each.headers.get("webhook-id") == execution_id]
                if len(found) >= times:
                    return found
                await arrived.wait()


class Listener(socket.socket):
    """A listening socket that records its connections. aiohttp does not know those in a TLS handshake."""

    def __init__(self, family: int) -> None:
        super().__init__(family)
        self._accepted: list[socket.socket] = []

    def accept(self) -> tuple[socket.socket, Any]:
        connection, address = super().accept()
        self._accepted.append(connection)
        return connection, address

    async def until_ended(self) -> None:
        """Shut the connections down, and wait until the event loop has closed them."""
        for connection in self._accepted:
            with contextlib.suppress(OSError):  # it is closed, or its client has left
                connection.shutdown(socket.SHUT_RDWR)
        while any(connection.fileno() >= 0 for connection in self._accepted):
            await anyio.lowlevel.checkpoint()


@asynccontextmanager
async def running_receiver(
    port: int = 0, address: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[Receiver]:
    """Run a receiver at this port, or at a free one, of a loopback address."""
    receiver, app = Receiver(), web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    listener = Listener(socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        await web.SockSite(runner, listener, ssl_context=tls).start()
        receiver.port = listener.getsockname()[1]
        yield receiver
    finally:
        await runner.cleanup()
        listener.close()
        with anyio.fail_after(PATIENCE_SECONDS):
            await listener.until_ended()
