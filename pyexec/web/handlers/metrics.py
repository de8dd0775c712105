"""`/metrics`: what is measured, for Prometheus."""

from typing import Protocol

from aiohttp import web
from aiohttp_apispec import docs


class Exposition(Protocol):
    """What was measured, as text."""

    content_type: str

    def exposition(self) -> bytes:
        """All of it at this moment."""


EXPOSITION = web.AppKey("exposition", Exposition)


@docs(tags=["server"], summary="Figures for Prometheus", produces=["text/plain"])
async def metrics(request: web.Request) -> web.StreamResponse:
    """Prometheus' text format; docs/operations.md explains each metric."""
    measured = request.app[EXPOSITION]
    return web.Response(body=measured.exposition(), headers={"Content-Type": measured.content_type})
