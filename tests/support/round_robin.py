"""A load balancer: each request goes to the next server, over a connection of its own."""

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive"}


@asynccontextmanager
async def round_robin(urls: Sequence[str]) -> AsyncIterator[str]:
    """Yield the URL of a balancer in front of these servers. It passes the `Host` header on."""
    targets = itertools.cycle(urls)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session:

        async def forward(request: web.Request) -> web.StreamResponse:
            url = next(targets) + request.path_qs
            body = await request.read()
            async with session.request(request.method, url, headers=request.headers, data=body) as answer:
                kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
                response = web.StreamResponse(status=answer.status, headers=kept)
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                await response.write_eof()
                return response

        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", forward)
        runner = web.AppRunner(app, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()
