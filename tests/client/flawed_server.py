"""A server that answers each request with the next of the given behaviours."""

from collections.abc import Awaitable, Callable

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class FlawedServer:
    """Answer each request with the next of the given behaviours, and record the requests."""

    def __init__(self) -> None:
        self.behaviours: list[Handler] = []
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.bodies: list[bytes] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.path_qs, dict(request.headers)))
        if request.method == "POST":
            self.bodies.append(await request.read())
        return await self.behaviours.pop(0)(request)

    def headers(self, name: str) -> list[str | None]:
        return [headers.get(name) for _, _, headers in self.requests]


def events(*chunks: bytes, cut: bool = False) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
        if cut:
            await hang_up(request)
        return response

    return answer


async def hang_up(request: web.Request) -> web.Response:
    request.transport.abort()
    return web.Response()


def status(number: int, body: object = None, **headers: str) -> Handler:
    async def answer(_request: web.Request) -> web.Response:
        return web.json_response(body or {"error": "no"}, status=number, headers=headers)

    return answer
