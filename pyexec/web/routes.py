"""The endpoints of CONTRACT §1: each reads its request, calls one service, and writes the answer."""

from collections.abc import AsyncIterator, Callable, Mapping
from http import HTTPStatus
from typing import TypeVar

import anyio
from aiohttp import web
from aiohttp_apispec import docs, json_schema, response_schema
from attrs import frozen

from pyexec.codec import parse_json, parse_request, to_json
from pyexec.correlation import current
from pyexec.domain.execution import Phase, Status
from pyexec.domain.journal import Stream
from pyexec.domain.result import Result, Summary
from pyexec.domain.spec import EvalRequest
from pyexec.domain.stream import Chunk, End, Position
from pyexec.errors import ExecutorError, InvalidRequest, TooLarge
from pyexec.services.live import Run
from pyexec.services.uploads import Upload
from pyexec.web.context import GATE, Context, caller_of, context_of, execution_id_of
from pyexec.web.evaluation import upload_of
from pyexec.web.files import get_file, get_files
from pyexec.web.metrics import metrics
from pyexec.web.multipart import read_upload, refuse_encoding
from pyexec.web.schemas import Problem, schema_of
from pyexec.web.sse import parse_position, send_events, wants_events

WAIT_SECONDS_MAX = 60.0
LIST_LIMIT, LIST_LIMIT_MAX = 50, 500
KEY_LENGTH_MAX = 255
CHECK_SECONDS = 5.0
N = TypeVar("N", int, float)


@frozen(kw_only=True)
class Accepted:
    """The answer to an asynchronous submission."""

    execution_id: str


@frozen(kw_only=True)
class KillAnswer:
    """The answer to a kill."""

    status: Status


@frozen(kw_only=True)
class Listing:
    """One page of executions, newest first."""

    executions: tuple[Summary, ...]
    next_cursor: str | None = None


@frozen(kw_only=True)
class Health:
    """The process lives."""

    status: str


@frozen(kw_only=True)
class Readiness:
    """It takes work; `warnings` are what an operator should know, and are left out when there are none."""

    status: str
    warnings: tuple[str, ...] | None = None


@docs(tags=["run"], summary="Run and wait for the result")
@response_schema(schema_of(Result), 200)
@response_schema(schema_of(Problem), 400)
async def exec_sync(request: web.Request) -> web.StreamResponse:
    """Runs the uploaded archive; the answer is its Result, or with `Accept: text/event-stream` its events."""
    async with read_upload(request) as body:
        upload = Upload(
            metadata=body.metadata, archive=body.archive, key=_key(request), identity="/api/v1/exec"
        )
        return await _run_and_answer(request, upload)


@docs(tags=["run"], summary="Accept for later")
@response_schema(schema_of(Accepted), 202)
@response_schema(schema_of(Problem), 400)
async def exec_async(request: web.Request) -> web.StreamResponse:
    """Accepts the uploaded archive; what runs it, and when, is seen by the id."""
    async with read_upload(request) as body:
        upload = Upload(
            metadata=body.metadata, archive=body.archive, key=_key(request), identity="/api/v1/exec/async"
        )
        execution_id = await context_of(request).submissions.submit(upload)
    current().execution_id = execution_id
    return web.json_response(
        to_json(Accepted(execution_id=execution_id)),
        status=HTTPStatus.ACCEPTED,
        headers={"Location": f"/api/v1/executions/{execution_id}"},
    )


@docs(tags=["run"], summary="Run source text")
@json_schema(schema_of(EvalRequest))
@response_schema(schema_of(Result), 200)
@response_schema(schema_of(Problem), 400)
async def evaluate(request: web.Request) -> web.StreamResponse:
    """Runs code, or files, given as JSON."""
    refuse_encoding(request)
    most = context_of(request).limits.metadata_bytes_max
    if (request.content_length or 0) > most:
        raise TooLarge(f"the body is larger than {most} bytes")
    try:
        text = await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise TooLarge(f"the body is larger than {most} bytes") from error
    asked = parse_request(parse_json(text, what="body"), EvalRequest, what="body")
    metadata, archive = upload_of(asked)
    upload = Upload(
        metadata=metadata,
        archive=_once(archive),
        key=_key(request),
        identity=f"/api/v1/eval {asked.eval_last_expr}",
        eval_last_expr=asked.eval_last_expr,
    )
    return await _run_and_answer(request, upload)


@docs(tags=["executions"], summary="State and result")
@response_schema(schema_of(Result), 200)
@response_schema(schema_of(Problem), 404)
async def get_execution(request: web.Request) -> web.StreamResponse:
    """The state; with `?wait=SECONDS` held until it has ended or the time is up."""
    wait = _number(request, "wait", 0.0, WAIT_SECONDS_MAX, least=0.0, kind=float)
    result = await context_of(request).queries.result(execution_id_of(request), caller_of(request), wait)
    return web.json_response(to_json(result))


@docs(tags=["executions"], summary="Kill")
@response_schema(schema_of(KillAnswer), 200)
@response_schema(schema_of(Problem), 404)
async def delete_execution(request: web.Request) -> web.StreamResponse:
    """Ends it, waiting or running; 202 when it has not ended after ten seconds."""
    execution = await context_of(request).kills.kill(execution_id_of(request))
    status = HTTPStatus.OK if execution.phase is Phase.ENDED else HTTPStatus.ACCEPTED
    return web.json_response(to_json(KillAnswer(status=execution.status)), status=status)


@docs(tags=["executions"], summary="List, newest first")
@response_schema(schema_of(Listing), 200)
@response_schema(schema_of(Problem), 400)
async def list_executions(request: web.Request) -> web.StreamResponse:
    """Executions without their output."""
    limit = _number(request, "limit", LIST_LIMIT, LIST_LIMIT_MAX, least=1, kind=int)
    wanted = request.query.get("status")
    if wanted is not None and wanted not in set(Status):
        raise InvalidRequest(f"status is {wanted!r}; allowed is {', '.join(Status)}", field="status")
    status = None if wanted is None else Status(wanted)
    summaries, cursor = await context_of(request).queries.page(status, limit, request.query.get("cursor"))
    listing = to_json(Listing(executions=tuple(summaries), next_cursor=cursor))
    return web.json_response({"next_cursor": None, **listing})


@docs(tags=["executions"], summary="Raw output")
async def get_logs(request: web.Request) -> web.StreamResponse:
    """What it printed, as bytes; with `?follow=1` as it comes."""
    wanted = request.query.get("stream")
    if wanted is not None and wanted not in set(Stream):
        raise InvalidRequest(f"stream is {wanted!r}; allowed is {', '.join(Stream)}", field="stream")
    shown = {Stream(wanted)} if wanted else {Stream.STDOUT, Stream.STDERR}
    follow = _flag(request, "follow")
    queries = context_of(request).queries
    if not follow:
        journal = await queries.journal(execution_id_of(request), caller_of(request))
        data = b"".join(d for stream, d in journal.since(0) if stream in shown)
        return web.Response(body=data, content_type="text/plain")
    items = await queries.items(execution_id_of(request), Position(), caller_of(request))
    response = web.StreamResponse(headers={"Content-Type": "text/plain", "X-Accel-Buffering": "no"})
    await response.prepare(request)
    async for item in items:
        if isinstance(item, Chunk) and item.stream in shown:
            await response.write(item.data)
        elif isinstance(item, End) and item.result.started_at is None and Stream.STDERR in shown:
            await response.write(
                item.result.stderr.encode()
            )  # setup failed; until now it was not the program's
    await response.write_eof()
    return response


@docs(tags=["executions"], summary="Events as they come")
async def get_events(request: web.Request) -> web.StreamResponse:
    """Server-Sent Events, going on after `Last-Event-ID`."""
    execution_id = execution_id_of(request)
    after = parse_position(request.headers.get("Last-Event-ID"))
    follow = _flag(request, "follow", default="1")
    items = await context_of(request).queries.items(execution_id, after, caller_of(request), follow=follow)
    return await send_events(request, execution_id, items)


@docs(tags=["server"], summary="The process lives")
@response_schema(schema_of(Health), 200)
async def health(_: web.Request) -> web.StreamResponse:
    """Answers as long as the process does."""
    return web.json_response(to_json(Health(status="ok")))


@docs(tags=["server"], summary="Can take work")
@response_schema(schema_of(Readiness), 200)
async def ready(request: web.Request) -> web.StreamResponse:
    """200 when all answers that it needs; else 503, and what does not: the server itself (starting, or stopping), the
    event log, the engine, its membership."""
    gate = request.app[GATE]
    if (context := gate.context) is None:
        return _not_ready(gate.waiting_for, {"server": gate.waiting_for})
    away = await _away(context)
    if away:
        return _not_ready("; ".join(f"{name}: {reason}" for name, reason in away.items()), away)
    return web.json_response(to_json(Readiness(status="ok", warnings=tuple(context.warnings()) or None)))


ROUTES = (
    ("POST", "/api/v1/exec/sync", exec_sync),
    ("POST", "/api/v1/exec/async", exec_async),
    ("POST", "/api/v1/eval", evaluate),
    ("GET", "/api/v1/executions", list_executions),
    ("GET", "/api/v1/executions/{id}", get_execution),
    ("DELETE", "/api/v1/executions/{id}", delete_execution),
    ("GET", "/api/v1/executions/{id}/logs", get_logs),
    ("GET", "/api/v1/executions/{id}/events", get_events),
    ("GET", "/api/v1/executions/{id}/files", get_files),
    ("GET", "/api/v1/executions/{id}/files/{path:.+}", get_file),
    ("GET", "/health", health),
    ("GET", "/ready", ready),
    ("GET", "/metrics", metrics),
)


def add_routes(app: web.Application) -> None:
    """Every path with and without a slash at its end."""
    for method, path, handler in ROUTES:
        app.router.add_route(method, path, handler)
        app.router.add_route(method, f"{path}/", handler)


def _not_ready(text: str, reasons: Mapping[str, str]) -> web.Response:
    document = {"status": "unavailable", "error": text, "code": "unavailable", "reasons": reasons}
    return web.json_response(document, status=HTTPStatus.SERVICE_UNAVAILABLE)


async def _away(context: Context) -> dict[str, str]:
    """What of the things a replica needs does not answer, and why."""
    away = {}
    for name, check in context.checks.items():
        try:
            with anyio.fail_after(CHECK_SECONDS):
                await check()
        except TimeoutError:
            away[name] = f"does not answer within {CHECK_SECONDS:g} s"
        except ExecutorError as error:
            away[name] = str(error)
    return away


async def _run_and_answer(request: web.Request, upload: Upload) -> web.StreamResponse:
    """Runs an upload for a caller that waits. One that hangs up ends its run, unless it gave a key; a server that
    stops does not: the run goes on, and is found by its id."""
    context = context_of(request)
    started = await context.submissions.run(upload)
    current().execution_id = started if isinstance(started, str) else started.id
    try:
        return await (
            _answer_run(request, context, started)
            if isinstance(started, Run)
            else _answer_known(request, context, started)
        )
    except (anyio.get_cancelled_exc_class(), ConnectionError):
        if upload.key is None and isinstance(started, Run) and not context.submissions.stopped:
            with anyio.CancelScope(shield=True):
                await context.kills.request(started.id)
        raise


async def _answer_run(request: web.Request, context: Context, run: Run) -> web.StreamResponse:
    if wants_events(request):
        items = context.queries.known_items(run.id, Position(), caller_of(request))
        return await send_events(request, run.id, items)
    await run.over.wait()
    if not run.has_ended:
        return await _answer_known(request, context, run.id)
    return web.json_response(to_json(context.queries.result_of_run(run)))


async def _answer_known(request: web.Request, context: Context, execution_id: str) -> web.StreamResponse:
    if wants_events(request):
        items = await context.queries.items(execution_id, Position(), caller_of(request))
        return await send_events(request, execution_id, items)
    return web.json_response(to_json(await context.queries.ended(execution_id, caller_of(request))))


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _key(request: web.Request) -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is not None and not 0 < len(key) <= KEY_LENGTH_MAX:
        raise InvalidRequest(f"Idempotency-Key has 1 to {KEY_LENGTH_MAX} characters", field="Idempotency-Key")
    return key


def _number(request: web.Request, name: str, default: N, most: N, *, least: N, kind: Callable[[str], N]) -> N:
    text = request.query.get(name)
    if text is None:
        return default
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not least <= value <= most:
        raise InvalidRequest(f"{name} is {text[:60]!r}; allowed is {least:g} to {most:g}", field=name)
    return value


def _flag(request: web.Request, name: str, default: str = "0") -> bool:
    text = request.query.get(name, default)
    if text not in ("0", "1", "false", "true"):
        raise InvalidRequest(f"{name} is {text[:60]!r}; allowed is 0 and 1", field=name)
    return text in ("1", "true")
