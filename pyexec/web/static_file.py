"""Files that the server serves from memory: the API documentation, the console, and the pages in Markdown."""

import gzip
import hashlib
import mimetypes
from collections.abc import Mapping
from importlib.resources.abc import Traversable
from typing import Self

from aiohttp import ETag, web
from attrs import frozen

from pyexec.web.headers import accepts_gzip

CONTENT_SECURITY_POLICY: Mapping[str, str] = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",
    "connect-src": "'self'",
    "base-uri": "'self'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
"""No resources from other hosts, no requests to them, and no inline scripts or styles."""


def page_headers(**changes: str) -> dict[str, str]:
    """Return the headers of a static response. `changes` replaces directives of the policy, `img_src` for example."""
    policy = {**CONTENT_SECURITY_POLICY, **{name.replace("_", "-"): value for name, value in changes.items()}}
    return {
        "Cache-Control": "no-cache",
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "Referrer-Policy": "no-referrer",
        "Vary": "Accept-Encoding",
    }


_HEADERS = page_headers()


@frozen
class StaticFile:
    """A file in memory, compressed with gzip."""

    compressed: bytes
    content_type: str

    @classmethod
    def of(cls, body: bytes, content_type: str) -> Self:
        """Compress `body`."""
        return cls(gzip.compress(body, mtime=0), content_type)

    @classmethod
    def read(cls, folder: Traversable, name: str) -> Self:
        """Read a file of the package: `name` compressed with gzip, if there is `name.gz`, otherwise as it is."""
        content_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
        if content_type.startswith("text/"):
            content_type += "; charset=utf-8"
        compressed = folder / f"{name}.gz"
        if compressed.is_file():
            return cls(compressed.read_bytes(), content_type)
        return cls.of((folder / name).read_bytes(), content_type)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve the file, or 304 if the client's copy is current.

        Clients must revalidate their copy each time: the next version of the server uses the same file names."""
        tag = hashlib.sha256(self.compressed).hexdigest()[:32]
        headers = {**_HEADERS, "ETag": f'W/"{tag}"'}
        if any(known in (ETag(tag, is_weak=True), ETag("*")) for known in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        headers["Content-Type"] = self.content_type
        if accepts_gzip(request):
            return web.Response(body=self.compressed, headers={**headers, "Content-Encoding": "gzip"})
        return web.Response(body=gzip.decompress(self.compressed), headers=headers)
