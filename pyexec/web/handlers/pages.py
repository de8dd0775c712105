"""The API's pages: `/openapi.json`, and Swagger UI over it at `/docs`. All of it lies in the package; links are
relative, so that a server behind a prefix has them, too."""

import gzip
import hashlib
import json
import mimetypes
from importlib.resources import files
from typing import Any

from aiohttp import ETag, web
from attrs import frozen

_SHOWN = ("swagger-ui.css", "swagger-ui-bundle.js", "start.js", "favicon-32x32.png")
_POLICY = "; ".join(
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
"""Nothing from elsewhere, nothing sent elsewhere, nothing written into the page itself."""


@frozen
class Page:
    """Bytes, packed by gzip, and what they are."""

    packed: bytes
    kind: str

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """The page; 304 for who has it. It is asked for again each time: a next version of the server has the same
        names."""
        tag = hashlib.sha256(self.packed).hexdigest()[:32]
        headers = {
            "Cache-Control": "no-cache",
            "Content-Security-Policy": _POLICY,
            "ETag": f'W/"{tag}"',
            "Referrer-Policy": "no-referrer",
            "Vary": "Accept-Encoding",
            "X-Content-Type-Options": "nosniff",
        }
        if any(known in (ETag(tag, is_weak=True), ETag("*")) for known in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        headers["Content-Type"] = self.kind
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            return web.Response(body=self.packed, headers={**headers, "Content-Encoding": "gzip"})
        return web.Response(body=gzip.decompress(self.packed), headers=headers)


def add_pages(app: web.Application, document: dict[str, Any]) -> None:
    """Adds the pages over this OpenAPI document."""
    index = _read("index.html")
    pages = {
        "/openapi.json": _page(json.dumps(document).encode(), "application/json"),
        # What a page refers to is found from the folder that it stands in, and `/docs` stands beside that.
        "/docs": _page(
            index.replace(b'<base href="./">', b'<base href="docs/">'), "text/html; charset=utf-8"
        ),
        "/docs/": _page(index, "text/html; charset=utf-8"),
        **{f"/docs/{name}": _file(name) for name in _SHOWN},
    }
    pages["/openapi.json/"] = pages["/openapi.json"]
    for path, page in pages.items():
        app.router.add_route("GET", path, page.answer)
    app.router.add_route("GET", "/", _lead_to_pages)


async def _lead_to_pages(_: web.Request) -> web.StreamResponse:
    """Who opens the server's address in a browser wants to see what it can do."""
    raise web.HTTPFound("docs")


def _file(name: str) -> Page:
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    charset = "; charset=utf-8" if kind.startswith("text/") else ""
    packed = files("pyexec.web") / "swagger" / f"{name}.gz"
    if packed.is_file():
        return Page(packed.read_bytes(), kind + charset)
    return _page(_read(name), kind + charset)


def _page(body: bytes, kind: str) -> Page:
    return Page(gzip.compress(body, mtime=0), kind)


def _read(name: str) -> bytes:
    return (files("pyexec.web") / "swagger" / name).read_bytes()
