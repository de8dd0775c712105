"""Test that one setup cannot use up the connections of the proxy for the package index, nor those to the index."""

import asyncio
from asyncio import StreamReader, StreamWriter, open_connection
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from attrs import define

from pyexec.adapters import connection_limit, index_proxy
from pyexec.adapters.connection_limit import ConnectionLimits
from pyexec.adapters.index_proxy import IndexProxy, serve_index
from pyexec.addresses import split_host_port
from tests.web.test_index_proxy import auth_of, found, free_port, raw_status

PATH = "/a/simple/"
OK = b"HTTP/1.1 200 "

Connection = tuple[StreamReader, StreamWriter]


@asynccontextmanager
async def running_proxy(
    answer: Callable[[web.Request], Awaitable[web.Response]],
) -> AsyncIterator[IndexProxy]:
    """Run the proxy of an index that answers in this way."""
    app = web.Application()
    app.router.add_get(PATH, answer)
    async with (
        TestServer(app) as index,
        serve_index(f"127.0.0.1:{free_port('127.0.0.1')}", str(index.make_url("/a/simple")), None) as proxy,
    ):
        yield proxy


@define
class Clients:
    """Clients at several addresses of this machine, which send requests of one setup."""

    address: str
    request: bytes
    streams: AsyncExitStack

    async def connect(self, client: str) -> Connection:
        connection = await open_connection(*split_host_port(self.address), local_addr=(client, 0))
        self.streams.callback(connection[1].close)
        return connection

    async def answer_to(self, connection: Connection) -> bytes:
        """Send a request. Return the head of its response and, if that is an error, the body."""
        reader, writer = connection
        writer.write(self.request)
        async with asyncio.timeout(5):
            head = await reader.readuntil(b"\r\n\r\n")
            return head if head.startswith(OK) else head + await reader.read()

    async def answer_to_new(self, client: str) -> bytes:
        return await self.answer_to(await self.connect(client))


@pytest.fixture
async def clients(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Clients]:
    """Yield clients of a proxy that allows 4 connections from one address, and 6 in total."""
    monkeypatch.setattr(index_proxy, "LIMITS", ConnectionLimits(total=6, per_address=4))
    monkeypatch.setattr(connection_limit, "REFUSED_MAX", 2)
    monkeypatch.setattr(connection_limit, "REFUSED_SECONDS", 0.5)
    async with AsyncExitStack() as streams, running_proxy(found) as proxy:
        with proxy.grant() as granted:
            request = f"GET {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: {auth_of(granted)}\r\n\r\n"
            yield Clients(proxy.address, request.encode(), streams)


async def test_connections_are_limited_for_each_client(clients: Clients) -> None:
    own = [await clients.connect("127.0.0.2") for _ in range(4)]
    refused = await clients.answer_to_new("127.0.0.2")
    assert refused.startswith(b"HTTP/1.1 429 ")
    assert b"Retry-After: 5" in refused
    assert b"4 connections from 127.0.0.2 are open" in refused
    assert (await clients.answer_to(own[0])).startswith(OK)
    assert (await clients.answer_to_new("127.0.0.3")).startswith(OK)


async def test_connections_are_limited_in_total(clients: Clients) -> None:
    own = [await clients.connect("127.0.0.2") for _ in range(4)]
    for client in ("127.0.0.3", "127.0.0.4"):
        assert (await clients.answer_to_new(client)).startswith(OK)
    refused = await clients.answer_to_new("127.0.0.5")
    assert refused.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: 5" in refused
    assert b"6 connections are open" in refused
    assert (await clients.answer_to(own[0])).startswith(OK)
    own[1][1].close()
    await asyncio.sleep(0.1)
    assert (await clients.answer_to_new("127.0.0.5")).startswith(OK)


async def test_connections_above_a_limit_are_closed_although_they_send_nothing(clients: Clients) -> None:
    own = [await clients.connect("127.0.0.2") for _ in range(4)]
    first, _, at_once = [await clients.connect("127.0.0.2") for _ in range(3)]
    async with asyncio.timeout(5):
        for connection in (at_once, first):
            with suppress(ConnectionResetError):
                assert await connection[0].read() == b""
    assert (await clients.answer_to(own[0])).startswith(OK)


async def test_a_setup_has_a_bounded_number_of_requests_in_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_proxy, "REQUESTS_MAX", 2)
    released = asyncio.Event()

    async def wait(_: web.Request) -> web.Response:
        await released.wait()
        return web.Response()

    async with running_proxy(wait) as proxy:
        with proxy.grant() as granted, proxy.grant() as other:
            paths = [raw_status(proxy, PATH, auth_of(setup)) for setup in [granted] * 2 + [other]]
            waiting = [asyncio.create_task(path) for path in paths]
            await asyncio.sleep(0.2)
            assert await raw_status(proxy, PATH, auth_of(granted)) == 429
            waiting.pop(0).cancel()  # a client that leaves ends its request
            await asyncio.sleep(0.2)
            waiting.append(asyncio.create_task(raw_status(proxy, PATH, auth_of(granted))))
            await asyncio.sleep(0.2)
            released.set()
            assert await asyncio.gather(*waiting) == [200] * 3
            assert await raw_status(proxy, PATH, auth_of(granted)) == 200
