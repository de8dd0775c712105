"""The console: the page at `/`, for people.

Everything is served from the package, and links are relative, so the page also works behind a proxy with a prefix."""

import secrets
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from aiohttp import web

from pyexec.web.static_file import StaticFile, page_headers

_DIR = files("pyexec.web") / "console"
_INDEX = "index.html"
_SERVED = (".css", ".js", ".svg")
_NONCE = "NONCE"
"""Placeholder in the page for the nonce of its response."""


def add_console(app: web.Application) -> None:
    """Add the page, and a route for each of its files."""
    app.router.add_get("/", _serve_index)
    for name in _names(_DIR):
        app.router.add_get(f"/console/{name}", _serve_file)
        app.router.add_get(f"/console/{name}/", _serve_file)


def _names(folder: Traversable) -> list[str]:
    root = Path(str(folder))
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.suffix in _SERVED)


async def _serve_index(_: web.Request) -> web.StreamResponse:
    """Serve the page, with a new nonce for inline styles.

    Displays of programs are in frames that inherit the policy of the page. The console gives the nonce to their styles.
    A program cannot know it, and no script of a program runs."""
    nonce = secrets.token_urlsafe(16)
    headers = page_headers(
        style_src=f"'self' 'nonce-{nonce}'",
        img_src="'self' data: blob:",
    )
    return web.Response(
        body=_index().replace(_NONCE, nonce).encode(),
        content_type="text/html",
        charset="utf-8",
        headers={**headers, "Cache-Control": "no-store"},
    )


async def _serve_file(request: web.Request) -> web.StreamResponse:
    return await _read(request.path.removeprefix("/console/").rstrip("/")).handle(request)


@cache
def _index() -> str:
    return (_DIR / _INDEX).read_text("utf-8")


@cache
def _read(name: str) -> StaticFile:
    """Read a file at the first request for it, so that the server starts faster."""
    return StaticFile.read(_DIR, name)
