"""The three ways to have something run."""

from collections.abc import AsyncIterator
from http import HTTPStatus

from aiohttp import web
from aiohttp_apispec import docs, form_schema, headers_schema, json_schema, response_schema

from pyexec.codec import parse_json, parse_request, to_json
from pyexec.domain.result import Result
from pyexec.domain.spec import EvalRequest
from pyexec.errors import TooLarge
from pyexec.services.uploads import Upload
from pyexec.web.context import context_of
from pyexec.web.eval_request import upload_of
from pyexec.web.multipart import Parts, read_upload, refuse_encoding
from pyexec.web.openapi.error_docs import problems
from pyexec.web.openapi.schemas import Use, schema_of
from pyexec.web.parameters import Idempotency, read_key
from pyexec.web.responses import Accepted, run_and_answer

RUNS = problems(400, 409, 413, 415, 429, 503)
EITHER = ["application/json", "text/event-stream"]


@docs(
    tags=["run"],
    summary="Run an archive",
    consumes=["multipart/form-data"],
    produces=EITHER,
    responses=RUNS,
)
@headers_schema(schema_of(Idempotency, Use.PARAMETERS))
@form_schema(schema_of(Parts, Use.BODY))
@response_schema(schema_of(Result), 200, description="How it ended, or its events as they come.")
async def exec_sync(request: web.Request) -> web.StreamResponse:
    """Runs the archive and answers with its result, or with `Accept: text/event-stream` with its events, the result
    last. A caller that hangs up ends the run, unless it gave an Idempotency-Key. Metadata before the archive is
    quicker: the archive then streams straight to where it runs."""
    async with read_upload(request) as body:
        upload = Upload(
            metadata=body.metadata, archive=body.archive, key=read_key(request), identity="/api/v1/exec"
        )
        return await run_and_answer(request, upload)


@docs(
    tags=["run"],
    summary="Accept an archive for later",
    consumes=["multipart/form-data"],
    responses=RUNS,
    headers={"202": {"Location": "Where the execution is found."}},
)
@headers_schema(schema_of(Idempotency, Use.PARAMETERS))
@form_schema(schema_of(Parts, Use.BODY))
@response_schema(schema_of(Accepted), 202, description="It is accepted, and will run.")
async def exec_async(request: web.Request) -> web.StreamResponse:
    """Accepts the archive; the id tells what becomes of it."""
    async with read_upload(request) as body:
        upload = Upload(
            metadata=body.metadata, archive=body.archive, key=read_key(request), identity="/api/v1/exec/async"
        )
        execution_id = await context_of(request).submissions.submit(upload)
    return web.json_response(
        to_json(Accepted(execution_id=execution_id)),
        status=HTTPStatus.ACCEPTED,
        headers={"Location": f"/api/v1/executions/{execution_id}"},
    )


@docs(tags=["run"], summary="Run source text", produces=EITHER, responses=RUNS)
@headers_schema(schema_of(Idempotency, Use.PARAMETERS))
@json_schema(schema_of(EvalRequest, Use.BODY))
@response_schema(schema_of(Result), 200, description="How it ended, or its events as they come.")
async def evaluate(request: web.Request) -> web.StreamResponse:
    """Runs code, or files, given as JSON. Like an archive in all else."""
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
        key=read_key(request),
        identity=f"/api/v1/eval {asked.eval_last_expr}",
        eval_last_expr=asked.eval_last_expr,
    )
    return await run_and_answer(request, upload)


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
