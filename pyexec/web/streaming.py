"""Send responses in pieces: files, output, and results whose output is too large to be one JSON text."""

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from http import HTTPStatus
from urllib.parse import quote

import anyio.lowlevel
from aiohttp import web

from pyexec.codec import to_json
from pyexec.domain.execution import Execution
from pyexec.domain.json_slices import encoded_text
from pyexec.domain.output_log import PIECE_BYTES, OutputLog, Stream
from pyexec.domain.result import Result, result_of, result_without_output
from pyexec.services.downloads import Download
from pyexec.web.context import public, trace_headers
from pyexec.web.middleware import CountedResponse, mark_complete

RESULT_AT_ONCE_BYTES = 64 * 1024
"""A result with more output is sent in pieces. Its JSON can be six times as large."""
DISPLAYS_AT_ONCE_BYTES = 16 * 1024
"""A result with more bytes of displays is sent in pieces, too: it is not decoded. 64 KiB can be 32,000 JSON values, and
decoding them takes 10 ms (2026-11-28)."""
WRITE_BYTES = 32 * 1024


async def send_stream(
    request: web.Request,
    headers: Mapping[str, str],
    chunks: AsyncIterator[bytes],
    first: bytes = b"",
    status: int = HTTPStatus.OK,
) -> web.StreamResponse:
    """Send a body in chunks, after `first`. To HEAD, only the headers are sent."""
    response = CountedResponse(status=status, headers=headers)
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    if first:
        await response.write(first)
    async for chunk in chunks:
        if chunk:
            await response.write(chunk)
    mark_complete(request, response)
    await response.write_eof()
    return response


async def send_download(
    request: web.Request, download: Download, content_type: str, name: str
) -> web.StreamResponse:
    """Send output files. Untrusted programs wrote them, so a browser must not show them."""
    # Read before the headers are sent, so that an unreadable file becomes an error response.
    first = await anext(download.chunks, b"")
    headers = {
        "Content-Type": content_type,
        "Content-Length": str(download.size),
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
    }
    return await send_stream(request, headers, download.chunks, first)


async def send_result(
    request: web.Request, execution: Execution, output_log: OutputLog
) -> web.StreamResponse:
    """Send the result of an execution as JSON."""
    traced = trace_headers(request, execution)
    if (
        len(output_log) <= RESULT_AT_ONCE_BYTES
        and output_log.size_of(Stream.DISPLAY) <= DISPLAYS_AT_ONCE_BYTES
    ):
        return web.json_response(to_json(public(request, result_of(execution, output_log))), headers=traced)
    result = public(request, result_without_output(execution, output_log))
    headers = {"Content-Type": "application/json; charset=utf-8", **traced}
    return await send_stream(request, headers, cooperative(result_pieces(result, output_log)))


async def cooperative(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Join small pieces, and let other tasks run after each large one. An empty piece also lets them run."""
    joined = bytearray()
    for piece in pieces:
        joined += piece
        if len(joined) >= WRITE_BYTES:
            yield bytes(joined)
            joined.clear()
            await anyio.lowlevel.checkpoint()
        elif not piece:
            await anyio.lowlevel.checkpoint()
    yield bytes(joined)


def result_pieces(result: Result, output_log: OutputLog) -> Iterator[bytes]:
    """Yield the JSON of a result.

    `stdout`, `stderr` and `displays` come from the output log, the other fields from `result`."""
    begin, until = "{", len(output_log)
    for name, value in to_json(result).items():
        yield f"{begin}{json.dumps(name)}: ".encode()
        if name in (Stream.STDOUT, Stream.STDERR):
            yield from encoded_text(output_log.pieces({Stream(name)}, until), ensure_ascii=True)
        elif name == "displays":
            yield from _list_pieces(output_log.displays(until))
        else:
            yield json.dumps(value).encode()
        begin = ", "
    yield b"}"


def _list_pieces(documents: Iterator[bytes]) -> Iterator[bytes]:
    """Yield a JSON list of these JSON documents."""
    begin = b"["
    for document in documents:
        yield begin
        yield from document_pieces(document)
        begin = b", "
    yield b"[]" if begin == b"[" else b"]"


def document_pieces(document: bytes) -> Iterator[bytes]:
    """Yield an encoded JSON document in pieces."""
    return (document[at : at + PIECE_BYTES] for at in range(0, len(document), PIECE_BYTES))
