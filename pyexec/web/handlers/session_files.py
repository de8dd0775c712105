"""Endpoints about the files of an interpreter session."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from urllib.parse import unquote_to_bytes

import anyio
from aiohttp import web
from aiohttp_apispec import docs, match_info_schema, querystring_schema, response_schema

from pyexec.codec import to_json
from pyexec.domain.output_files import normalize_pattern
from pyexec.errors import InvalidRequest, TooLarge
from pyexec.services.sessions.files import FileListing
from pyexec.web.context import get_context, read_caller, read_session_id
from pyexec.web.handlers.sessions import CLOSED, UNKNOWN
from pyexec.web.headers import TAR, prefers
from pyexec.web.multipart import body_chunks, reject_content_encoding
from pyexec.web.openapi.schema_builder import SchemaRole, error_responses, schema_of
from pyexec.web.schemas import read_query, reject_query
from pyexec.web.session_schemas import FilesQuery, SessionFilePath, SessionPath
from pyexec.web.streaming import send_download, send_stream

BINARY = "application/octet-stream"
_DOWNLOAD_HEADERS = {"200": {"Content-Disposition": "Suggested file name."}}
_CONDITIONS = ("If-Match", "If-None-Match", "If-Unmodified-Since")
_UNKNOWN_FILE = {404: "The session is unknown, or has no such file.", 410: CLOSED}


@docs(
    tags=["sessions"],
    summary="List or download the files",
    produces=["application/json", TAR],
    responses=error_responses(400, 503, other={404: UNKNOWN, 410: CLOSED}),
    headers=_DOWNLOAD_HEADERS,
)
@match_info_schema(schema_of(SessionPath, SchemaRole.PARAMETERS))
@querystring_schema(schema_of(FilesQuery, SchemaRole.PARAMETERS))
@response_schema(schema_of(FileListing), 200, description="The list, or an uncompressed tar archive.")
async def list_session_files(request: web.Request) -> web.StreamResponse:
    """List the files below /work that match a pattern. With `Accept: application/x-tar`, download them as a tar."""
    pattern = read_query(request, FilesQuery).glob
    session_id, caller = read_session_id(request), read_caller(request)
    normalize_pattern(pattern, "glob")
    if not prefers(request, TAR):
        listing = await get_context(request).sessions.list_files(session_id, pattern, caller)
        return web.json_response(to_json(listing))
    chunks = await get_context(request).sessions.archive(session_id, pattern, caller)
    headers = {"Content-Type": TAR, "Content-Disposition": f"attachment; filename={session_id}.tar"}
    async with _closing(chunks):
        first = await anext(chunks, b"")  # so that an error before the first byte becomes an error response
        return await send_stream(request, headers, chunks, first)


@docs(
    tags=["sessions"],
    summary="Download a file",
    produces=[BINARY],
    responses={
        "200": {"description": "Contents of the file."},
        **error_responses(400, 503, other=_UNKNOWN_FILE),
    },
    headers=_DOWNLOAD_HEADERS,
)
@match_info_schema(schema_of(SessionFilePath, SchemaRole.PARAMETERS))
async def read_session_file(request: web.Request) -> web.StreamResponse:
    """Return a file below /work. If it changes while it is sent, the transfer can break."""
    reject_query(request)
    path = _read_path(request)
    session_id, caller = read_session_id(request), read_caller(request)
    download = await get_context(request).sessions.read_file(session_id, path, caller)
    async with _closing(download.chunks):
        return await send_download(request, download, BINARY, path.rpartition("/")[2])


@docs(
    tags=["sessions"],
    summary="Upload a file",
    consumes=[BINARY],
    responses={
        "204": {"description": "The file is written."},
        **error_responses(
            *(400, 415, 503),
            other={
                404: UNKNOWN,
                410: CLOSED,
                413: "The file is larger than the server allows, or than the disk of the session.",
            },
        ),
    },
)
@match_info_schema(schema_of(SessionFilePath, SchemaRole.PARAMETERS))
async def write_session_file(request: web.Request) -> web.StreamResponse:
    """Create or replace a file below /work, and the directories in its path. The body is the contents of the file."""
    reject_query(request)
    reject_content_encoding(request)
    _reject_headers(request, "Content-Range", *_CONDITIONS)
    if request.content_type.startswith("multipart/"):
        raise InvalidRequest(
            "the body must be the contents of the file, not a form; for example curl -T FILE",
            field="Content-Type",
        )
    path, session_id, caller = _read_path(request), read_session_id(request), read_caller(request)
    sessions = get_context(request).sessions
    await sessions.locate(session_id, caller)
    await sessions.write_file(session_id, path, _file_chunks(request), caller)
    return web.Response(status=HTTPStatus.NO_CONTENT)


@docs(
    tags=["sessions"],
    summary="Delete a file",
    responses={
        "204": {"description": "The file is deleted."},
        **error_responses(400, 503, other=_UNKNOWN_FILE),
    },
)
@match_info_schema(schema_of(SessionFilePath, SchemaRole.PARAMETERS))
async def delete_session_file(request: web.Request) -> web.StreamResponse:
    """Delete a file below /work."""
    reject_query(request)
    _reject_headers(request, *_CONDITIONS)
    path = _read_path(request)
    await get_context(request).sessions.delete_file(read_session_id(request), path, read_caller(request))
    return web.Response(status=HTTPStatus.NO_CONTENT)


def _reject_headers(request: web.Request, *names: str) -> None:
    """Reject headers that restrict a change. Ignoring them would destroy data that the client meant to keep."""
    for name in names:
        if name in request.headers:
            raise InvalidRequest(f"{name} is not supported here; remove the header", field=name)


def _read_path(request: web.Request) -> str:
    """Return the path of the file. The service checks it, but cannot see which bytes were not UTF-8."""
    try:
        unquote_to_bytes(request.rel_url.raw_path).decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest("the path is not UTF-8", field="path") from error
    return request.match_info["path"].rstrip("/")


async def _file_chunks(request: web.Request) -> AsyncIterator[bytes]:
    """Yield the body as it arrives; raise `TooLarge` if it exceeds the limit of uploads."""
    limits = get_context(request).limits
    bytes_left = limits.upload_bytes_max
    too_large = TooLarge(f"the file is larger than {limits.upload_bytes_max} bytes")
    if (request.content_length or 0) > bytes_left:
        raise too_large
    async for chunk in body_chunks(request):
        bytes_left -= len(chunk)
        if bytes_left < 0:
            raise too_large
        yield chunk


@asynccontextmanager
async def _closing(chunks: AsyncIterator[bytes]) -> AsyncIterator[None]:
    """Close a generator at the end, even if it is not exhausted. A session has a limited number of open transfers."""
    try:
        yield
    finally:
        if isinstance(chunks, AsyncGenerator):
            with anyio.CancelScope(shield=True):
                await chunks.aclose()
