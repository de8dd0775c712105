"""Endpoints about the server itself: liveness, readiness, metrics, and the API's documentation.

The pages at `/docs` are served from the package, and their links are relative, so they also work behind a proxy with a
prefix."""

import gzip
import hashlib
import json
import mimetypes
from http import HTTPStatus
from importlib.resources import files
from typing import Any, Self

import anyio
from aiohttp import ETag, web
from aiohttp_apispec import docs, response_schema
from attrs import frozen

from pyexec.codec import to_json
from pyexec.errors import ExecutorError
from pyexec.web.context import EXPOSITION, SERVER_STATE, Context
from pyexec.web.openapi.schema_builder import error_responses, schema_of
from pyexec.web.schemas import Health, Readiness, Unreadiness, reject_query

CHECK_SECONDS = 5.0


@docs(tags=["server"], summary="Liveness check")
@response_schema(schema_of(Health), 200, description="The process is alive.")
async def health(_: web.Request) -> web.StreamResponse:
    """Respond as long as the process is alive.

    This endpoint and `/ready` ignore the query string, because load balancers and monitors may append one."""
    return web.json_response(to_json(Health(status="ok")))


@docs(tags=["server"], summary="Readiness check")
@response_schema(schema_of(Readiness), 200, description="The server accepts work.")
@response_schema(schema_of(Unreadiness), 503, description="The server does not accept work.")
async def ready(request: web.Request) -> web.StreamResponse:
    """Check whether the server accepts work: event log, container engine and cluster membership must respond in time.

    While the server is starting or stopping, `reasons` contains only `server`."""
    state = request.app[SERVER_STATE]
    if (context := state.context) is None:
        return _not_ready(state.not_ready_reason, {"server": state.not_ready_reason})
    reasons = await _failed_checks(context)
    if reasons:
        return _not_ready("; ".join(f"{name}: {reason}" for name, reason in reasons.items()), reasons)
    readiness = Readiness(
        status="ok",
        sandbox_reuse="on" if context.sandbox_reuse else "off",
        warnings=tuple(context.warnings()) or None,
    )
    return web.json_response(to_json(readiness))


@docs(tags=["server"], summary="Prometheus metrics", produces=["text/plain"], responses=error_responses(400))
async def metrics(request: web.Request) -> web.StreamResponse:
    """Return all metrics in the Prometheus text format."""
    reject_query(request)
    exposition = request.app[EXPOSITION]
    return web.Response(body=exposition.exposition(), headers={"Content-Type": exposition.content_type})


async def _failed_checks(context: Context) -> dict[str, str]:
    """Return the reason for each check that fails, by the check's name."""
    reasons = {}
    for name, check in context.checks.items():
        try:
            with anyio.fail_after(CHECK_SECONDS):
                await check()
        except TimeoutError:
            reasons[name] = f"timed out after {CHECK_SECONDS:g} s"
        except ExecutorError as error:
            reasons[name] = str(error)
    return reasons


def _not_ready(text: str, reasons: dict[str, str]) -> web.Response:
    body = Unreadiness(status="unavailable", error=text, code="unavailable", reasons=reasons)
    return web.json_response(to_json(body), status=HTTPStatus.SERVICE_UNAVAILABLE)


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


def add_api_docs(app: web.Application, openapi: dict[str, Any]) -> None:
    """Add the pages that show this OpenAPI document."""
    index = _read("index.html")
    html = "text/html; charset=utf-8"
    static_files = {
        "/openapi.json": StaticFile.of(json.dumps(openapi).encode(), "application/json"),
        # Without a trailing slash, the browser resolves relative links from the parent folder.
        "/docs": StaticFile.of(index.replace(b'<base href="./">', b'<base href="docs/">'), html),
        "/docs/": StaticFile.of(index, html),
        **{f"/docs/{name}": _swagger_file(name) for name in _SWAGGER_FILES},
    }
    static_files["/openapi.json/"] = static_files["/openapi.json"]
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
