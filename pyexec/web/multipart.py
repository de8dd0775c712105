"""Reading an upload: the parts `metadata` and `tar`, in either order, without holding the archive in memory."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from aiohttp import BodyPartReader, MultipartReader, web
from aiohttp.http_exceptions import HttpProcessingError
from attrs import field, fields, frozen

from pyexec.codec import parse_json, parse_request
from pyexec.domain.field_docs import described
from pyexec.domain.spec import Metadata
from pyexec.errors import InvalidRequest, TooLarge
from pyexec.web.context import WebLimits, context_of

CHUNK_BYTES = 256 * 1024
_MALFORMED = (ValueError, AssertionError, EOFError, HttpProcessingError, web.RequestPayloadError)
"""What aiohttp's reader raises for a body that it cannot read."""


@frozen(kw_only=True)
class Parts:
    """An upload."""

    metadata: Metadata = field(
        factory=Metadata, metadata=described("How to run it. Send it before the archive.")
    )
    tar: bytes = field(metadata={"media": "application/x-tar", **described("An uncompressed tar.")})


PARTS = frozenset(part.name for part in fields(Parts))


@frozen
class Body:
    """What an upload holds; `archive` can be read once."""

    metadata: Metadata
    archive: AsyncIterator[bytes]


@asynccontextmanager
async def read_upload(request: web.Request) -> AsyncIterator[Body]:
    """The upload in `request`, metadata parsed. When the archive comes first it is spooled to disk until then.

    Reading raises `InvalidRequest` or `TooLarge` where the body is at fault, also while `archive` is read."""
    context = context_of(request)
    parts = _Reader(request, context.limits)
    first = await parts.next()
    if first is None:
        raise InvalidRequest("the request has no part named tar", field="tar")
    if first.name == "metadata":
        metadata = _metadata(await parts.text(first))
        second = await parts.next()
        if second is None:
            raise InvalidRequest("the request has no part named tar", field="tar")
        yield Body(metadata, parts.archive(second))
        return
    async with anyio.TemporaryFile(dir=str(context.spool_dir)) as spool:
        async for chunk in parts.chunks(first):
            await spool.write(chunk)
        second = await parts.next()
        metadata = Metadata() if second is None else _metadata(await parts.text(second))
        await parts.expect_end()
        await spool.seek(0)
        yield Body(metadata, _spooled(spool))


class _Reader:
    """The parts of a multipart body, one after the other, bounded in size and in idle time."""

    def __init__(self, request: web.Request, limits: WebLimits) -> None:
        if not request.content_type.startswith("multipart/"):
            raise InvalidRequest("send multipart/form-data with the parts metadata and tar")
        refuse_encoding(request)
        self._limits = limits
        self._left = limits.upload_bytes_max
        if (request.content_length or 0) > self._left:
            raise self._over()
        try:
            self._reader = MultipartReader(request.headers, request.content)
        except (ValueError, AssertionError) as error:
            raise InvalidRequest(f"the Content-Type is not that of a multipart body: {error}") from error
        self._seen: set[str] = set()

    async def next(self) -> BodyPartReader | None:
        part = await self._guarded(self._reader.next())
        if part is None:
            return None
        if not isinstance(part, BodyPartReader) or part.name not in PARTS:
            name = getattr(part, "name", None)
            raise InvalidRequest(
                f"the request has a part named {name!r}; it takes metadata and tar", field="body"
            )
        if part.name in self._seen:
            raise InvalidRequest(f"the request has two parts named {part.name}", field=part.name)
        self._seen.add(part.name)
        return part

    async def chunks(self, part: BodyPartReader) -> AsyncIterator[bytes]:
        while chunk := await self._guarded(part.read_chunk(CHUNK_BYTES)):
            self._left -= len(chunk)
            if self._left < 0:
                raise self._over()
            yield chunk

    async def archive(self, part: BodyPartReader) -> AsyncIterator[bytes]:
        """The last part; nothing may follow it."""
        async for chunk in self.chunks(part):
            yield chunk
        await self.expect_end()

    async def expect_end(self) -> None:
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

    async def _guarded(self, reading: Any) -> Any:
        """Awaits a read of the body; a peer that stops sending, or sends nonsense, is told so."""
        try:
            with anyio.fail_after(self._limits.idle_seconds):
                return await reading
        except TimeoutError as error:
            raise InvalidRequest(
                f"nothing came for {self._limits.idle_seconds:g} s; the upload stopped in the middle",
                code="upload_stalled",
            ) from error
        except _MALFORMED as error:
            told = str(error).strip().splitlines() or [type(error).__name__]
            raise InvalidRequest(
                f"the multipart body is malformed or cut short: {told[-1].strip()}"
            ) from error

    def _over(self) -> TooLarge:
        return TooLarge(f"the request is larger than {self._limits.upload_bytes_max} bytes")


def refuse_encoding(request: web.Request) -> None:
    """Bodies come as they are: raises for a Content-Encoding."""
    encoding = request.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise web.HTTPUnsupportedMediaType(
            text=f"send the body as it is, without Content-Encoding {encoding}"
        )


def _metadata(text: bytes) -> Metadata:
    return parse_request(parse_json(text, what="metadata"), Metadata, what="metadata")


async def _spooled(spool: Any) -> AsyncIterator[bytes]:
    while chunk := await spool.read(CHUNK_BYTES):
        yield chunk
