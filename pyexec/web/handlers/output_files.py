"""Answering with the files that an execution brought back. They come from programs that nobody vetted: no browser
is to show them, or to guess what they are."""

from urllib.parse import quote

from aiohttp import web
from aiohttp_apispec import docs, match_info_schema

from pyexec.services.downloads import Download
from pyexec.web.context import context_of, execution_id_of
from pyexec.web.middleware.access import note_answered
from pyexec.web.openapi.error_docs import problems
from pyexec.web.openapi.schemas import Use, schema_of
from pyexec.web.parameters import OneExecution, OneFile

_NOT_YET = "It has not ended yet."
_NAME = {"200": {"Content-Disposition": "The name to save it under."}}


@docs(
    tags=["executions"],
    summary="All files brought back, as a tar",
    produces=["application/x-tar"],
    responses={"200": {"description": "An uncompressed tar."}, **problems(404, 503, own={409: _NOT_YET})},
    headers=_NAME,
)
@match_info_schema(schema_of(OneExecution, Use.PARAMETERS))
async def get_files(request: web.Request) -> web.StreamResponse:
    """What `output_files` brought back, once the execution has ended."""
    execution_id = execution_id_of(request)
    download = await context_of(request).downloads.archive(execution_id)
    return await _send(request, download, "application/x-tar", f"{execution_id}.tar")


@docs(
    tags=["executions"],
    summary="One file brought back",
    produces=["application/octet-stream"],
    responses={
        "200": {"description": "The file's bytes."},
        **problems(503, own={404: "There is no such execution, or no such file of it.", 409: _NOT_YET}),
    },
    headers=_NAME,
)
@match_info_schema(schema_of(OneFile, Use.PARAMETERS))
async def get_file(request: web.Request) -> web.StreamResponse:
    """One of the files that the result lists, once the execution has ended."""
    path = request.match_info["path"].rstrip("/")
    download = await context_of(request).downloads.one(execution_id_of(request), path)
    return await _send(request, download, "application/octet-stream", path.rpartition("/")[2])


async def _send(request: web.Request, download: Download, kind: str, name: str) -> web.StreamResponse:
    first = await anext(download.chunks, b"")  # what cannot be read at all is an error, not a broken answer
    headers = {
        "Content-Type": kind,
        "Content-Length": str(download.size),
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
        "X-Content-Type-Options": "nosniff",
    }
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    await response.write(first)
    async for chunk in download.chunks:
        await response.write(chunk)
    note_answered(request, response)
    await response.write_eof()
    return response
