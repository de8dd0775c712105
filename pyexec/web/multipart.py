"""Read a multipart upload: the parts `metadata` and `tar`, in either order, without holding the archive in memory."""

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any, Generic, TypeVar

import aiohttp.multipart
import anyio
from aiohttp import BodyPartReader, MultipartReader, StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError
from attrs import fields, frozen

from pyexec.errors import InvalidRequest, TooLarge, quote, shorten
from pyexec.services.uploads import Spool
from pyexec.web.context import WebLimits, get_context
from pyexec.web.schemas import Parts, parse_document

T = TypeVar("T")

# aiohttp 3.14 parses the header `Content-Disposition` twice for each part, and builds a regular expression each time.
# Most parts have the same headers as those before.
aiohttp.multipart.parse_content_disposition = lru_cache(maxsize=64)(
    aiohttp.multipart.parse_content_disposition
)

CHUNK_BYTES = 256 * 1024
_PART_NAMES = frozenset(part.name for part in fields(Parts))
MALFORMED = (ValueError, AssertionError, EOFError, HttpProcessingError, web.RequestPayloadError)
"""Errors that aiohttp's reader raises for a malformed body."""


@frozen
class Body(Generic[T]):
    """Content of an upload. `archive` can be iterated once."""

    metadata: T
    archive: AsyncIterator[bytes]


@asynccontextmanager
async def read_upload(request: web.Request, cls: type[T]) -> AsyncIterator[Body[T]]:
    """Parse the metadata as a `cls`, and provide the archive as a stream.

    If the archive comes first, spool it to disk until the metadata has been read. Raise `InvalidRequest` or `TooLarge`
    for a bad body, also while `archive` is iterated."""
    context = get_context(request)
    reader = _PartReader(request, context.limits)
    first = await reader.next()
    if first is None:
        raise InvalidRequest("the request has no part named tar", field="tar")
    if first.name == "metadata":
        metadata = await _parse_metadata(await reader.text(first), cls)
        second = await reader.next()
        if second is None:
            raise InvalidRequest("the request has no part named tar", field="tar")
        yield Body(metadata, reader.last_part(second))
        return
    spool = await Spool.fill(context.spool_dir, reader.chunks(first))
    try:
        second = await reader.next()
        metadata = await _parse_metadata(b"" if second is None else await reader.text(second), cls)
        await reader.expect_end()
        yield Body(metadata, _read_spool(spool))
    finally:
        with anyio.CancelScope(shield=True):
            await spool.close()


class _PartReader:
    """Reads the parts of a multipart body in order, with limits on its size and on pauses."""

    def __init__(self, request: web.Request, limits: WebLimits) -> None:
        if not request.content_type.startswith("multipart/"):
            raise InvalidRequest(
                "send multipart/form-data with the parts metadata and tar; "
                "POST /api/v1/eval takes source text, as JSON"
            )
        reject_content_encoding(request)
        self._limits = limits
        self._content = request.content
        self._bytes_left = limits.upload_bytes_max
        if (request.content_length or 0) > self._bytes_left:
            raise self._too_large()
        try:
            self._reader = MultipartReader(request.headers, self._content)
        except (ValueError, AssertionError) as error:
            raise InvalidRequest(
                f"invalid Content-Type of a multipart body: {shorten(str(error))}"
            ) from error
        self._seen: set[str] = set()

    async def next(self) -> BodyPartReader | None:
        """Return the next part, or None at the end of the body."""
        part = await self._guard(self._reader.next())
        if part is None:
            return None
        if not isinstance(part, BodyPartReader) or part.name not in _PART_NAMES:
            name = getattr(part, "name", None)
            raise InvalidRequest(
                f"unexpected part named {quote(name)}; the allowed parts are metadata and tar", field="body"
            )
        if part.name in self._seen:
            raise InvalidRequest(f"the request has two parts named {part.name}", field=part.name)
        self._seen.add(part.name)
        return part

    async def chunks(self, part: BodyPartReader) -> AsyncIterator[bytes]:
        while not part.at_eof() and (chunk := await self._guard(part.read_chunk(CHUNK_BYTES))):
            self._bytes_left -= len(chunk)
            if self._bytes_left < 0:
                raise self._too_large()
            yield chunk

    async def last_part(self, part: BodyPartReader) -> AsyncIterator[bytes]:
        async for chunk in self.chunks(part):
            yield chunk
        await self.expect_end()

    async def expect_end(self) -> None:
        """Raise `InvalidRequest` if another part follows."""
        if await self.next() is not None:
            raise InvalidRequest("the request has more parts than metadata and tar", field="body")

    async def text(self, part: BodyPartReader) -> bytes:
        text = bytearray()
        async for chunk in self.chunks(part):
            text += chunk
            if len(text) > self._limits.metadata_bytes_max:
                raise TooLarge(
                    f"the metadata part is larger than {self._limits.metadata_bytes_max} bytes",
                    field="metadata",
                )
        return bytes(text)

    async def _guard(self, reading: Any) -> Any:
        """Await a read of the body; raise `InvalidRequest` if the client stops sending, or if the body is malformed."""
        try:
            return await read_or_stall(self._content, reading, self._limits)
        except MALFORMED as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise InvalidRequest(
                f"the multipart body is malformed or cut short: {shorten(lines[-1].strip())}"
            ) from error

    def _too_large(self) -> TooLarge:
        return TooLarge(f"the request is larger than {self._limits.upload_bytes_max} bytes")


async def read_or_stall(content: StreamReader, reading: Awaitable[T], limits: WebLimits) -> T:
    """Await a read of the body; raise `InvalidRequest` if no data arrives for too long."""
    if content.is_eof():  # the whole body has arrived, so the read does not wait
        return await reading
    with anyio.move_on_after(limits.idle_seconds):  # a third of the cost of `fail_after`
        return await reading
    raise InvalidRequest(
        f"the upload stalled: no data received for {limits.idle_seconds:g} s", code="upload_stalled"
    )


async def read_body(request: web.Request) -> bytes:
    """Read a body of JSON; raise `TooLarge` if it exceeds the limit."""
    limits = get_context(request).limits
    too_large = TooLarge(f"the body is larger than {limits.metadata_bytes_max} bytes")
    if (request.content_length or 0) > limits.metadata_bytes_max:
        raise too_large
    body = bytearray()
    async for chunk in body_chunks(request):
        body += chunk
        if len(body) > limits.metadata_bytes_max:
            raise too_large
    return bytes(body)


async def body_chunks(request: web.Request) -> AsyncIterator[bytes]:
    """Yield the body as it arrives; raise `InvalidRequest` if it stalls or is cut short."""
    limits = get_context(request).limits
    try:
        while chunk := await read_or_stall(request.content, request.content.readany(), limits):
            yield chunk
    except MALFORMED as error:
        raise InvalidRequest(f"the body is malformed or cut short: {error}") from error


def reject_content_encoding(request: web.Request) -> None:
    """Raise 415 for a compressed body."""
    encoding = request.headers.get("Content-Encoding", "")
    if encoding.strip().lower() not in ("", "identity"):
        shown = shorten(encoding).encode(errors="backslashreplace").decode()  # a header can have any bytes
        raise web.HTTPUnsupportedMediaType(
            text=f"Content-Encoding {shown} is not supported; send the body uncompressed"
        )


async def _parse_metadata(text: bytes, cls: type[T]) -> T:
    if text.strip() in (b"", b"null"):  # the part is optional
        return cls()
    return await parse_document(text, cls, what="metadata")


async def _read_spool(spool: Spool) -> AsyncIterator[bytes]:
    """Yield the archive, then free the space: the request goes on until the program has ended."""
    async for chunk in spool.read():
        yield chunk
    await spool.close()
