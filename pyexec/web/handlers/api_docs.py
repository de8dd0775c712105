"""API documentation: `/openapi.json`, and Swagger UI at `/docs`.

Everything is served from the package, and links are relative, so the pages also work behind a proxy with a prefix."""

import json
from importlib.resources import files

from aiohttp import web
from attrs import define

from pyexec.web.openapi.lazy import LazyDocument
from pyexec.web.static_file import StaticFile

_SWAGGER_DIR = files("pyexec.web") / "swagger"
_SWAGGER_FILES = ("swagger-ui.css", "swagger-ui-bundle.js", "start.js", "favicon-32x32.png")


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
        **{f"/docs/{name}": StaticFile.read(_SWAGGER_DIR, name) for name in _SWAGGER_FILES},
    }
    for path in ("/openapi.json", "/openapi.json/"):
        app.router.add_get(path, openapi_file.handle)
    for path, static_file in static_files.items():
        app.router.add_get(path, static_file.handle)
