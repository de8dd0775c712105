"""A reverse proxy for the package index. It adds the index's password, so no setup has to know it.

docs/design/environments.md explains how setups use it."""

import base64
import errno
import logging
import secrets
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import unquote

import aiohttp
import anyio
from aiohttp import web
from attrs import define, field
from yarl import URL

from pyexec.adapters.connection_limit import RETRY_AFTER, ConnectionLimits, LimitedServer
from pyexec.addresses import split_host_port
from pyexec.errors import SettingsError

logger = logging.getLogger(__name__)

USER = "setup"
CHUNK_BYTES = 256 * 1024
IN_CONTAINER = "/.dockerenv"
"""Docker creates this file in every container."""
IDLE_SECONDS = 60.0
LIMITS = ConnectionLimits(total=512, per_address=256)
"""uv opens up to 50 connections. Several setups have one address if Docker's userland proxy connects them."""
REQUESTS_MAX = 100
"""Maximum number of requests in progress for each setup."""
_METHODS = ("GET", "HEAD")
_PAGES = frozenset(
    {"text/html", "application/vnd.pypi.simple.v1+html", "application/vnd.pypi.simple.v1+json"}
)
_TO_INDEX = ("Accept", "Range", "If-None-Match", "If-Modified-Since", "User-Agent")
_TO_SETUP = ("Content-Type", "Content-Range", "Accept-Ranges", "ETag", "Last-Modified", "Cache-Control")


@define(eq=False)
class IndexProxy:
    """Passes requests of running setups on to one index: only below the parent of the index's own path.

    `address` is the host and port under which setups reach the proxy."""

    address: str
    index: URL
    session: aiohttp.ClientSession
    _requests: dict[str, int] = field(factory=dict)
    """The number of requests in progress, by the password of the setup."""

    @contextmanager
    def grant(self) -> Iterator[str]:
        """Yield the URL of the index for one setup. Its password is valid inside the block only."""
        password = secrets.token_urlsafe(24)
        self._requests[password] = 0
        try:
            yield f"http://{USER}:{password}@{self.address}{self.index.raw_path}"
        finally:
            del self._requests[password]

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request of a setup with the index's response."""
        if request.method not in _METHODS:
            raise web.HTTPMethodNotAllowed(request.method, _METHODS)
        password = self._password(request.headers.get("Authorization", ""))
        if password is None:
            raise web.HTTPUnauthorized(headers={"WWW-Authenticate": 'Basic realm="pyexec"'})
        if self._requests[password] >= REQUESTS_MAX:
            text = f"too many requests: {REQUESTS_MAX} of this setup are in progress"
            raise web.HTTPTooManyRequests(text=text, headers=RETRY_AFTER)
        self._requests[password] += 1
        try:
            return await self._forward(request)
        finally:
            if password in self._requests:
                self._requests[password] -= 1

    async def _forward(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.raw_path.partition("?")[0]
        if not _is_below(path, _parent(self.index.raw_path)):
            raise web.HTTPNotFound(text="the proxy serves only the package index")
        target = URL(f"{self.index.origin()}{request.raw_path}", encoded=True)
        headers = {name: request.headers[name] for name in _TO_INDEX if name in request.headers}
        headers["Accept-Encoding"] = "identity"
        if self.index.user is not None:
            headers["Authorization"] = basic_auth(self.index.user, self.index.password or "")
        try:
            async with self.session.request(
                request.method, target, headers=headers, allow_redirects=False
            ) as response:
                return await self._pass_on(request, response)
        except (aiohttp.ClientError, TimeoutError) as error:
            logger.warning("request to the package index failed: %s", error)
            raise web.HTTPBadGateway(text="the package index does not answer") from error

    async def _pass_on(
        self, request: web.BaseRequest, response: aiohttp.ClientResponse
    ) -> web.StreamResponse:
        headers = {name: response.headers[name] for name in _TO_SETUP if name in response.headers}
        if location := response.headers.get("Location"):
            headers["Location"] = self._rewrite(location.encode()).decode()
        is_page = response.content_type in _PAGES and request.method == "GET"
        passed = web.StreamResponse(status=response.status, headers=headers)
        if not is_page and "Content-Encoding" not in response.headers:
            passed.content_length = response.content_length
        await passed.prepare(request)
        chunks = response.content.iter_chunked(CHUNK_BYTES)
        try:
            async for chunk in self._rewrite_chunks(chunks) if is_page else chunks:
                await passed.write(chunk)
            await passed.write_eof()
        except (aiohttp.ClientError, TimeoutError) as error:
            # The response has begun. An error response would look like the rest of the file.
            logger.warning("a transfer from the package index broke: %s", error)
            if request.transport is not None:
                request.transport.abort()
        return passed

    def _rewrite(self, text: bytes) -> bytes:
        """Let absolute links to the index lead to the proxy. Links to other servers stay."""
        return text.replace(self._link(), f"http://{self.address}/".encode())

    async def _rewrite_chunks(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Rewrite a page in parts: a setup can ask for many large pages at once, and read them slowly."""
        link, rest = self._link(), b""
        async for chunk in chunks:
            before, found, rest = (rest + chunk).rpartition(link)
            complete = max(0, len(rest) - len(link) + 1)  # after it, a link may have begun
            yield self._rewrite(before + found) + rest[:complete]
            rest = rest[complete:]
        yield rest

    def _link(self) -> bytes:
        return f"{self.index.origin()}/".encode()

    def _password(self, authorization: str) -> str | None:
        """Return the password in an Authorization header; None if it belongs to no running setup."""
        given, found = authorization.encode("utf-8", "surrogateescape"), None
        for password in self._requests:
            if secrets.compare_digest(given, basic_auth(USER, password).encode()):
                found = password
        return found


@asynccontextmanager
async def serve_index(address: str, index_url: str, ca_bundle: Path | None) -> AsyncIterator[IndexProxy]:
    """Serve the index at `address`, a host and a port. Raises `SettingsError` if that is impossible."""
    host, port = split_host_port(address)
    context = ssl.create_default_context(cafile=ca_bundle)
    connector = aiohttp.TCPConnector(ssl=context, limit=LIMITS.total)
    timeout = aiohttp.ClientTimeout(total=None, connect=IDLE_SECONDS, sock_read=IDLE_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        proxy = IndexProxy(address, URL(index_url, encoded=True), session)
        server = LimitedServer(
            proxy.handle, LIMITS, access_log=None, handler_cancellation=True, keepalive_timeout=IDLE_SECONDS
        )
        runner = web.ServerRunner(server, shutdown_timeout=0)
        await runner.setup()
        try:
            await _listen(runner, host, port)
            yield proxy
        finally:
            await runner.cleanup()


async def _listen(runner: web.ServerRunner, host: str, port: int) -> None:
    """Listen at the address. In a container, it may be an address of the host: then listen on all addresses of
    the container."""
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL or not await anyio.Path(IN_CONTAINER).exists():
                raise
            await web.TCPSite(runner, None, port).start()
    except OSError as error:
        raise SettingsError(
            f"PYEXEC_PIP_PROXY is '{host}:{port}', which cannot be used: {error.strerror}"
        ) from error


def basic_auth(user: str, password: str) -> str:
    """Return the value of an Authorization header."""
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def _parent(path: str) -> str:
    """Return the path that contains the index and, in every usual index, its files."""
    return path.rstrip("/").rpartition("/")[0] + "/"


def _is_below(path: str, parent: str) -> bool:
    """Return True if every server finds the path below `parent`: some decode a path twice, and some ignore what follows
    a semicolon in a segment (Tomcat and Jetty, which many indexes use)."""
    segments = unquote(unquote(path)).replace("\\", "/").split("/")
    return path.startswith(parent) and all(
        each.partition(";")[0].strip("\0\t\r\n ") != ".." for each in segments
    )
