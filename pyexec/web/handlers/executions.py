"""What is asked of executions: their state, their output, their end."""

from http import HTTPStatus

from aiohttp import web
from aiohttp_apispec import docs, headers_schema, match_info_schema, querystring_schema, response_schema

from pyexec.codec import to_json
from pyexec.domain.event_stream import EndItem, OutputItem, Position
from pyexec.domain.execution import Phase
from pyexec.domain.output_log import Stream
from pyexec.domain.result import Result
from pyexec.web.context import caller_of, context_of, execution_id_of
from pyexec.web.middleware.access import note_answered
from pyexec.web.openapi.error_docs import problems
from pyexec.web.openapi.schemas import Use, schema_of
from pyexec.web.parameters import OneExecution, Paging, Reading, Resuming, Waiting, Watching, read_query
from pyexec.web.responses import KillAnswer, Listing
from pyexec.web.sse import parse_position, send_events


@docs(tags=["executions"], summary="State and result", responses=problems(400, 404, 503))
@match_info_schema(schema_of(OneExecution, Use.PARAMETERS))
@querystring_schema(schema_of(Waiting, Use.PARAMETERS))
@response_schema(schema_of(Result), 200, description="How it stands, with what it has printed so far.")
async def get_execution(request: web.Request) -> web.StreamResponse:
    """How an execution stands; with `wait` once it has ended, or the time is up."""
    asked = read_query(request, Waiting)
    result = await context_of(request).executions.result(
        execution_id_of(request), caller_of(request), asked.wait
    )
    return web.json_response(to_json(result))


@docs(tags=["executions"], summary="Kill", responses=problems(404, 503))
@match_info_schema(schema_of(OneExecution, Use.PARAMETERS))
@response_schema(schema_of(KillAnswer), 200, description="It has ended.")
@response_schema(schema_of(KillAnswer), 202, description="It has not ended after ten seconds, and will.")
async def delete_execution(request: web.Request) -> web.StreamResponse:
    """Ends an execution, whether it waits or runs. One that had ended before stays as it is."""
    execution = await context_of(request).executions.kill(execution_id_of(request))
    status = HTTPStatus.OK if execution.phase is Phase.ENDED else HTTPStatus.ACCEPTED
    return web.json_response(to_json(KillAnswer(status=execution.status)), status=status)


@docs(tags=["executions"], summary="List, newest first", responses=problems(400, 503))
@querystring_schema(schema_of(Paging, Use.PARAMETERS))
@response_schema(schema_of(Listing), 200, description="One page.")
async def list_executions(request: web.Request) -> web.StreamResponse:
    """Executions without their output."""
    asked = read_query(request, Paging)
    executions = context_of(request).executions
    summaries, cursor = await executions.page(asked.status, asked.limit, asked.cursor)
    listing = to_json(Listing(executions=tuple(summaries), next_cursor=cursor))
    return web.json_response({"next_cursor": None, **listing})


@docs(
    tags=["executions"],
    summary="Raw output",
    produces=["text/plain"],
    responses={"200": {"description": "The bytes that it printed."}, **problems(400, 404, 503)},
)
@match_info_schema(schema_of(OneExecution, Use.PARAMETERS))
@querystring_schema(schema_of(Reading, Use.PARAMETERS))
async def get_logs(request: web.Request) -> web.StreamResponse:
    """What it printed, as bytes; with `follow` as it comes."""
    asked = read_query(request, Reading)
    shown = {Stream(asked.stream.value)} if asked.stream else {Stream.STDOUT, Stream.STDERR}
    executions = context_of(request).executions
    if not asked.follow:
        output_log = await executions.output_log(execution_id_of(request), caller_of(request))
        data = b"".join(d for stream, d in output_log.since(0) if stream in shown)
        return web.Response(body=data, content_type="text/plain")
    items = await executions.items(execution_id_of(request), Position(), caller_of(request))
    response = web.StreamResponse(headers={"Content-Type": "text/plain", "X-Accel-Buffering": "no"})
    await response.prepare(request)
    async for item in items:
        if isinstance(item, OutputItem) and item.stream in shown:
            await response.write(item.data)
        elif isinstance(item, EndItem) and item.result.started_at is None and Stream.STDERR in shown:
            # Setup failed: until now what it said was not the program's.
            await response.write(item.result.stderr.encode())
    note_answered(request, response)
    await response.write_eof()
    return response


@docs(
    tags=["executions"],
    summary="Events as they come",
    produces=["text/event-stream"],
    responses={
        "200": {"description": "What happened, and what was printed, the result last."},
        **problems(400, 404, 503),
    },
)
@match_info_schema(schema_of(OneExecution, Use.PARAMETERS))
@querystring_schema(schema_of(Watching, Use.PARAMETERS))
@headers_schema(schema_of(Resuming, Use.PARAMETERS))
async def get_events(request: web.Request) -> web.StreamResponse:
    """Server-Sent Events. A stream that ends without a result is asked for again, with the last id that
    came: nothing is lost and nothing comes twice."""
    execution_id = execution_id_of(request)
    after = parse_position(request.headers.get("Last-Event-ID"))
    follow = read_query(request, Watching).follow
    items = await context_of(request).executions.items(execution_id, after, caller_of(request), follow=follow)
    return await send_events(request, execution_id, items)
