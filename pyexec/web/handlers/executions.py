"""Endpoints about executions: state, list, kill, output, events, output files."""

import json
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from http import HTTPStatus
from itertools import islice

from aiohttp import web
from aiohttp_apispec import docs, headers_schema, match_info_schema, querystring_schema, response_schema

from pyexec.codec import to_json
from pyexec.domain.event_stream import EndItem, Item, OutputItem, Position
from pyexec.domain.execution import Phase
from pyexec.domain.ids import is_session_id
from pyexec.domain.output_log import Stream
from pyexec.domain.result import Result
from pyexec.domain.timeline import Timeline
from pyexec.errors import InvalidRequest, quote
from pyexec.web.context import get_context, public, read_caller, read_execution_id
from pyexec.web.headers import TAR, known_version, version_headers
from pyexec.web.openapi.schema_builder import SchemaRole, error_responses, schema_of
from pyexec.web.schemas import (
    EventsQuery,
    ExecutionPath,
    IfNoneMatchHeader,
    KillAnswer,
    LastEventIdHeader,
    Listing,
    ListQuery,
    LogsQuery,
    OutputFilePath,
    WaitQuery,
    read_header,
    read_query,
    reject_query,
)
from pyexec.web.sse import parse_position, send_events
from pyexec.web.streaming import cooperative, send_download, send_result, send_stream

SUMMARIES_AT_ONCE = 32
"""How many summaries one turn encodes, in a millisecond or two."""
_NOT_ENDED = "The execution has not ended yet."
_DOWNLOAD_HEADERS = {"200": {"Content-Disposition": "Suggested file name."}}


@docs(tags=["executions"], summary="Get an execution", responses=error_responses(400, 404, 503))
@match_info_schema(schema_of(ExecutionPath, SchemaRole.PARAMETERS))
@querystring_schema(schema_of(WaitQuery, SchemaRole.PARAMETERS))
@response_schema(schema_of(Result), 200, description="State of the execution, with its output so far.")
async def get_execution(request: web.Request) -> web.StreamResponse:
    """Return the state of an execution. With `wait`, respond once it has ended or the time is up."""
    query = read_query(request, WaitQuery)
    executions = get_context(request).executions
    caller = read_caller(request)
    execution = await executions.wait(read_execution_id(request), caller, query.wait)
    async with executions.output(execution, caller) as output_log:
        return await send_result(request, execution, output_log)


@docs(tags=["executions"], summary="Get the timeline", responses=error_responses(400, 404, 503))
@match_info_schema(schema_of(ExecutionPath, SchemaRole.PARAMETERS))
@response_schema(schema_of(Timeline), 200, description="Events and phases of the execution so far.")
async def get_timeline(request: web.Request) -> web.StreamResponse:
    """Return what happened to an execution: its events, with the replica of each, and the duration of each phase."""
    reject_query(request)
    executions = get_context(request).executions
    timeline = await executions.timeline(read_execution_id(request), read_caller(request))
    return web.json_response(to_json(timeline))


@docs(tags=["executions"], summary="Kill an execution", responses=error_responses(404, 503))
@match_info_schema(schema_of(ExecutionPath, SchemaRole.PARAMETERS))
@response_schema(schema_of(KillAnswer), 200, description="The execution has ended.")
@response_schema(
    schema_of(KillAnswer), 202, description="The execution has not ended within ten seconds, but will end."
)
async def delete_execution(request: web.Request) -> web.StreamResponse:
    """Kill an execution, whether it is pending or running. If it has already ended, its status does not change."""
    reject_query(request)
    executions = get_context(request).executions
    execution = await executions.kill(read_execution_id(request), read_caller(request))
    status = HTTPStatus.OK if execution.phase is Phase.ENDED else HTTPStatus.ACCEPTED
    return web.json_response(to_json(KillAnswer(status=execution.status)), status=status)


@docs(
    tags=["executions"],
    summary="List executions",
    responses={
        "304": {"description": "No execution has changed since the response with this `ETag`."},
        **error_responses(400, 503),
    },
    headers={"200": {"ETag": "Version of the list."}},
)
@querystring_schema(schema_of(ListQuery, SchemaRole.PARAMETERS))
@headers_schema(schema_of(IfNoneMatchHeader, SchemaRole.PARAMETERS))
@response_schema(schema_of(Listing), 200, description="One page of executions.")
async def list_executions(request: web.Request) -> web.StreamResponse:
    """List executions without their output, newest first. Texts with more than 200 characters are cut.

    To follow the list, send the `ETag` of the last response as `If-None-Match`, and `wait`: the server responds as soon
    as an execution is accepted, changes or ends. The deletion of an ended execution is not a change."""
    query = read_query(request, ListQuery)
    if query.session_id is not None and not is_session_id(query.session_id):
        raise InvalidRequest(f"{quote(query.session_id)} is not a session id", field="session_id")
    listing = get_context(request).executions.listing
    known = known_version(request)
    # Before the list is read, so that a change meanwhile leads to another version.
    version = await listing.version(known, query.wait)
    headers = version_headers(version)
    if version == known:
        return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
    summaries, cursor = await listing.page(
        query.status, query.limit, query.cursor, read_caller(request), query.session_id
    )
    documents = (json.dumps(to_json(public(request, summary))) for summary in summaries)
    groups = (", ".join(group) for group in _groups(documents, SUMMARIES_AT_ONCE))
    listed = [group async for group in get_context(request).executions.turns.iterate(groups)]
    text = f'{{"next_cursor": {json.dumps(cursor)}, "executions": [{", ".join(listed)}]}}'
    return web.json_response(text=text, headers=headers)


def _groups(texts: Iterator[str], size: int) -> Iterator[Sequence[str]]:
    while group := list(islice(texts, size)):
        yield group


@docs(
    tags=["executions"],
    summary="Get the raw output",
    produces=["text/plain"],
    responses={"200": {"description": "Output of the program."}, **error_responses(400, 404, 503)},
)
@match_info_schema(schema_of(ExecutionPath, SchemaRole.PARAMETERS))
@querystring_schema(schema_of(LogsQuery, SchemaRole.PARAMETERS))
async def get_logs(request: web.Request) -> web.StreamResponse:
    """Return the output of the program as bytes. With `follow`, stream it until the execution ends."""
    query = read_query(request, LogsQuery)
    wanted = {Stream(query.stream.value)} if query.stream else {Stream.STDOUT, Stream.STDERR}
    executions = get_context(request).executions
    headers = {"Content-Type": "text/plain"}
    if not query.follow:
        execution = await executions.get(read_execution_id(request), read_caller(request))
        async with executions.output(execution, read_caller(request), complete=True) as output_log:
            headers["Content-Length"] = str(sum(output_log.size_of(stream) for stream in wanted))
            pieces = output_log.pieces(wanted, until=len(output_log))  # the program may print more meanwhile
            return await send_stream(request, headers, cooperative(pieces))
    items = await executions.items(read_execution_id(request), Position(), read_caller(request))
    headers["X-Accel-Buffering"] = "no"
    async with aclosing(_output_of(items, wanted)) as output:
        return await send_stream(request, headers, output)


async def _output_of(
    items: AsyncGenerator[Sequence[Item], None], wanted: set[Stream]
) -> AsyncGenerator[bytes, None]:
    async with aclosing(items):
        async for batch in items:
            yield b"".join(
                item.data for item in batch if isinstance(item, OutputItem) and item.stream in wanted
            )
            end = batch[-1]
            if isinstance(end, EndItem) and end.result.started_at is None and Stream.STDERR in wanted:
                # The program did not start: its setup failed, and its stderr is the setup's output.
                yield end.output_log.bytes_of(Stream.STDERR)


@docs(
    tags=["executions"],
    summary="Stream the events",
    produces=["text/event-stream"],
    responses={
        "200": {"description": "Lifecycle events and output; the last event carries the result."},
        "204": {"description": "The execution has ended, and `Last-Event-ID` names its last event."},
        **error_responses(400, 404, 503),
    },
)
@match_info_schema(schema_of(ExecutionPath, SchemaRole.PARAMETERS))
@querystring_schema(schema_of(EventsQuery, SchemaRole.PARAMETERS))
@headers_schema(schema_of(LastEventIdHeader, SchemaRole.PARAMETERS))
async def get_events(request: web.Request) -> web.StreamResponse:
    """Stream lifecycle events and output as Server-Sent Events.

    A stream that ends without a result can be resumed: send the id of the last received event as `Last-Event-ID`.
    No event is lost or repeated. After the last event of an ended execution there is nothing to resume: the response
    is 204, which stops an `EventSource`."""
    execution_id = read_execution_id(request)
    after = parse_position(read_header(request, "Last-Event-ID"))
    follow = read_query(request, EventsQuery).follow
    executions = get_context(request).executions
    if after.seq:
        execution = await executions.get(execution_id, read_caller(request))
        if execution.phase is Phase.ENDED and after.seq >= execution.seq:
            return web.Response(status=HTTPStatus.NO_CONTENT)
    items = await executions.items(execution_id, after, read_caller(request), follow=follow)
    return await send_events(request, execution_id, items)


@docs(
    tags=["executions"],
    summary="Download all output files",
    produces=[TAR],
    responses={
        "200": {"description": "Uncompressed tar archive."},
        **error_responses(404, 503, other={409: _NOT_ENDED}),
    },
    headers=_DOWNLOAD_HEADERS,
)
@match_info_schema(schema_of(ExecutionPath, SchemaRole.PARAMETERS))
async def get_files(request: web.Request) -> web.StreamResponse:
    """Return the files that match `output_files` as a tar archive, once the execution has ended."""
    reject_query(request)
    execution_id = read_execution_id(request)
    download = await get_context(request).downloads.archive(execution_id, read_caller(request))
    return await send_download(request, download, TAR, f"{execution_id}.tar")


@docs(
    tags=["executions"],
    summary="Download one output file",
    produces=["application/octet-stream"],
    responses={
        "200": {"description": "Contents of the file."},
        **error_responses(
            503, other={404: "The execution is unknown, or has no such output file.", 409: _NOT_ENDED}
        ),
    },
    headers=_DOWNLOAD_HEADERS,
)
@match_info_schema(schema_of(OutputFilePath, SchemaRole.PARAMETERS))
async def get_file(request: web.Request) -> web.StreamResponse:
    """Return one of the files that the result lists, once the execution has ended."""
    reject_query(request)
    path = request.match_info["path"].rstrip("/")
    downloads = get_context(request).downloads
    download = await downloads.one(read_execution_id(request), path, read_caller(request))
    return await send_download(request, download, "application/octet-stream", path.rpartition("/")[2])
