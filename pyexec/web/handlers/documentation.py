"""The documentation: `/openapi.json`, Swagger UI at `/docs`, `/llms.txt`, pages in Markdown, and files they link to.

Everything is served from the package, and links are relative, so the pages also work behind a proxy with a prefix. A
page or file has the path that it has in the repository. `pyexec/web/pages` has symbolic links to the pages of the
repository; an installed package has copies."""

import json
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from aiohttp import web
from attrs import define, field

from pyexec.web.static_file import StaticFile

_SWAGGER_DIR = files("pyexec.web") / "swagger"
_SWAGGER_FILES = ("swagger-ui.css", "swagger-ui-bundle.js", "start.js", "favicon-32x32.png")
_TEXT = "text/plain; charset=utf-8"
_TYPES = {
    ".md": "text/markdown; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".webp": "image/webp",
    ".yml": "application/yaml",
}
"""The media types of pages and linked files, by suffix."""
_PAGES_DIR = Path(str(files("pyexec.web") / "pages"))
_PAGES = ("llms.txt", "*.md", "*/*.md", "*/*/*.md")
_LINKED = ("LICENSE", "docs/*.json", "docs/*.svg", "docs/*.yml", "docs/console/*.webp")
PATHS = frozenset(
    f"/{file.relative_to(_PAGES_DIR)}" for pattern in _PAGES + _LINKED for file in _PAGES_DIR.glob(pattern)
)
"""The paths of all pages in Markdown, and of the files they link to. The server serves no other file of the folder."""


@define
class LazyDocument:
    """The OpenAPI document, built in a thread at the first use.

    Most servers never need it, and building it takes a tenth of the processor time of a start (2026-11-27)."""

    _build: Callable[[], dict[str, Any]]
    _document: dict[str, Any] | None = None
    _building: anyio.Lock = field(factory=anyio.Lock)

    async def get(self) -> dict[str, Any]:
        """Return the document. Callers share it and must not change it."""
        async with self._building:
            if self._document is None:
                self._document = await anyio.to_thread.run_sync(self._build)
            return self._document


@define
class OpenAPIFile:
    """Serves the OpenAPI document, compressed at the first request."""

    _document: LazyDocument
    _file: StaticFile | None = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve the document."""
        document = await self._document.get()
        if self._file is None:
            self._file = StaticFile.of(json.dumps(document).encode(), "application/json")
        return await self._file.handle(request)


def add_api_docs(app: web.Application, document: LazyDocument) -> None:
    """Add the pages that show the OpenAPI document."""
    openapi_file = OpenAPIFile(document)
    index = (_SWAGGER_DIR / "index.html").read_bytes()
    html = "text/html; charset=utf-8"
    static_files = {
        # Without a trailing slash, the browser resolves relative links from the parent folder.
        "/docs": StaticFile.of(index.replace(b'<base href="./">', b'<base href="docs/">'), html),
        "/docs/": StaticFile.of(index, html),
    }
    for name in _SWAGGER_FILES:
        static_files[f"/docs/{name}"] = static_files[f"/docs/{name}/"] = StaticFile.read(_SWAGGER_DIR, name)
    for path in ("/openapi.json", "/openapi.json/"):
        app.router.add_get(path, openapi_file.handle)
    for path, static_file in static_files.items():
        app.router.add_get(path, static_file.handle)


def add_pages(app: web.Application) -> None:
    """Add a route for each page in Markdown, and for each file that a page links to."""
    for path in PATHS:
        app.router.add_get(path, _serve)
        app.router.add_get(f"{path}/", _serve)


async def _serve(request: web.Request) -> web.StreamResponse:
    return await _read(request.path.rstrip("/")).handle(request)


@cache
def _read(path: str) -> StaticFile:
    """Read a page or file at the first request for it, so that the server starts faster."""
    return StaticFile.of((_PAGES_DIR / path[1:]).read_bytes(), _TYPES.get(Path(path).suffix, _TEXT))
