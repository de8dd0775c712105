"""API documentation: `/openapi.json`, and Swagger UI at `/docs`.

Everything is served from the package, and links are relative, so the pages also work behind a proxy with a prefix."""

import gzip
import hashlib
import json
import mimetypes
from importlib.resources import files
from typing import Self

from aiohttp import ETag, web
from attrs import define, frozen

from pyexec.web.openapi.lazy import LazyDocument

_SWAGGER_DIR = files("pyexec.web") / "swagger"
_SWAGGER_FILES = ("swagger-ui.css", "swagger-ui-bundle.js", "start.js", "favicon-32x32.png")
_CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'self'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""No resources from other hosts, no requests to them, and no inline scripts or styles."""


@frozen
class StaticFile:
    """A file in memory, compressed with gzip."""

    compressed: bytes
    content_type: str

    @classmethod
    def of(cls, body: bytes, content_type: str) -> Self:
        """Compress `body`."""
        return cls(gzip.compress(body, mtime=0), content_type)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve the file, or 304 if the client's copy is current.

        Clients must revalidate their copy each time: the next version of the server uses the same file names."""
        tag = hashlib.sha256(self.compressed).hexdigest()[:32]
        headers = {
            "Cache-Control": "no-cache",
            "Content-Security-Policy": _CONTENT_SECURITY_POLICY,
            "ETag": f'W/"{tag}"',
            "Referrer-Policy": "no-referrer",
            "Vary": "Accept-Encoding",
        }
        if any(known in (ETag(tag, is_weak=True), ETag("*")) for known in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        headers["Content-Type"] = self.content_type
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            return web.Response(body=self.compressed, headers={**headers, "Content-Encoding": "gzip"})
        return web.Response(body=gzip.decompress(self.compressed), headers=headers)


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
    index = _read("index.html")
    html = "text/html; charset=utf-8"
    static_files = {
        # Without a trailing slash, the browser resolves relative links from the parent folder.
        "/docs": StaticFile.of(index.replace(b'<base href="./">', b'<base href="docs/">'), html),
        "/docs/": StaticFile.of(index, html),
        **{f"/docs/{name}": _swagger_file(name) for name in _SWAGGER_FILES},
    }
    for path in ("/openapi.json", "/openapi.json/"):
        app.router.add_get(path, openapi_file.handle)
    for path, static_file in static_files.items():
        app.router.add_get(path, static_file.handle)
    app.router.add_get("/", _redirect_to_docs)


async def _redirect_to_docs(_: web.Request) -> web.StreamResponse:
    raise web.HTTPFound("docs")


def _swagger_file(name: str) -> StaticFile:
    content_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
    if content_type.startswith("text/"):
        content_type += "; charset=utf-8"
    compressed = _SWAGGER_DIR / f"{name}.gz"
    if compressed.is_file():
        return StaticFile(compressed.read_bytes(), content_type)
    return StaticFile.of(_read(name), content_type)


def _read(name: str) -> bytes:
    return (_SWAGGER_DIR / name).read_bytes()
