"""Endpoints about interpreter sessions: open, list, read, close, run code, interrupt, restart."""

from http import HTTPStatus

from aiohttp import web
from aiohttp_apispec import (
    docs,
    form_schema,
    headers_schema,
    json_schema,
    match_info_schema,
    querystring_schema,
    response_schema,
)

from pyexec.codec import to_json
from pyexec.domain.result import Result
from pyexec.domain.session_request import SessionRequest
from pyexec.domain.session_view import SessionView
from pyexec.errors import InvalidRequest
from pyexec.services.active_runs import Run
from pyexec.services.sessions.cells import Cell
from pyexec.web.context import (
    BODY,
    accepted_headers,
    get_context,
    public,
    read_caller,
    read_session_id,
    read_tenant,
)
from pyexec.web.handlers.submissions import run_and_respond
from pyexec.web.headers import known_version, version_headers
from pyexec.web.multipart import read_body, read_upload, reject_content_encoding
from pyexec.web.openapi.schema_builder import SchemaRole, error_responses, schema_of
from pyexec.web.schemas import (
    Accepted,
    IdempotencyHeader,
    IfNoneMatchHeader,
    parse_document,
    read_header,
    read_idempotency_key,
    read_query,
    reject_query,
)
from pyexec.web.session_schemas import (
    CellRequest,
    InterruptAnswer,
    SessionListing,
    SessionListQuery,
    SessionParts,
    SessionPath,
)

UNKNOWN = "The session is unknown, or was deleted after its retention."
CLOSED = "The session is closed."
_SESSION_ERRORS = error_responses(503, other={404: UNKNOWN, 410: CLOSED})
_CELL_ERRORS = error_responses(
    *(400, 409, 413, 415, 503),
    other={404: UNKNOWN, 410: CLOSED, 429: "Too many cells of the session wait."},
)


@docs(
    tags=["sessions"],
    summary="Open a session",
    responses=error_responses(
        *(400, 413, 415, 503),
        other={429: "No more sessions can be opened now: too many are open, or the memory is in use."},
    ),
    headers={"201": {"Location": "Path of the session."}},
)
@json_schema(schema_of(SessionRequest, SchemaRole.REQUEST_BODY))
@form_schema(schema_of(SessionParts, SchemaRole.REQUEST_BODY))
@response_schema(schema_of(SessionView), 201, description="The session is open, and accepts code.")
async def open_session(request: web.Request) -> web.StreamResponse:
    """Open an interpreter that keeps its variables and files between requests.

    Send the options as JSON; or, to begin with files, `multipart/form-data` with the parts `metadata` and `tar`. The
    response arrives once the interpreter is ready: after the setup, if packages must be installed."""
    reject_query(request)
    if read_header(request, "Idempotency-Key") is not None:
        text = "opening a session takes no Idempotency-Key; after a lost response, look for the session in the list"
        raise InvalidRequest(text, field="Idempotency-Key")
    sessions, caller, tenant = get_context(request).sessions, read_caller(request), read_tenant(request)
    await sessions.place(caller, tenant)
    if request.content_type.startswith("multipart/"):
        async with read_upload(request, SessionRequest) as upload:
            view = await sessions.open(upload.metadata, upload.archive, caller, tenant)
    else:
        reject_content_encoding(request)
        body = request[BODY] = await read_body(request)
        options = await parse_document(body.strip() or b"{}", SessionRequest, what="body")
        view = await sessions.open(options, None, caller, tenant)
    return web.json_response(
        to_json(public(request, view)),
        status=HTTPStatus.CREATED,
        headers={"Location": f"/api/v1/sessions/{view.id}"},
    )


@docs(
    tags=["sessions"],
    summary="List sessions",
    responses={
        "304": {"description": "No session has changed since the response with this `ETag`."},
        **error_responses(400, 503),
    },
    headers={"200": {"ETag": "Version of the list."}},
)
@querystring_schema(schema_of(SessionListQuery, SchemaRole.PARAMETERS))
@headers_schema(schema_of(IfNoneMatchHeader, SchemaRole.PARAMETERS))
@response_schema(schema_of(SessionListing), 200, description="All sessions, newest first.")
async def list_sessions(request: web.Request) -> web.StreamResponse:
    """List the sessions, newest first. Closed ones are listed until they are deleted after their retention.

    Only the replica that owns a session counts its cells here; `GET` of a single session always does.

    To follow the list, send the `ETag` of the last response as `If-None-Match`, and `wait`: the server responds as soon
    as a session is opened, adopted, restarted, closed or deleted. Cells do not change the list."""
    query = read_query(request, SessionListQuery)
    sessions = get_context(request).sessions
    known = known_version(request)
    # Before the list is read, so that a change meanwhile leads to another version.
    version = await sessions.list_version(known, query.wait)
    headers = version_headers(version)
    if version == known:
        return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
    views = await sessions.list(read_caller(request))
    listing = SessionListing(sessions=tuple(public(request, view) for view in views))
    return web.json_response(to_json(listing), headers=headers)


@docs(tags=["sessions"], summary="Get a session", responses=error_responses(503, other={404: UNKNOWN}))
@match_info_schema(schema_of(SessionPath, SchemaRole.PARAMETERS))
@response_schema(schema_of(SessionView), 200, description="State of the session.")
async def get_session(request: web.Request) -> web.StreamResponse:
    """Return the state of a session, open or closed."""
    reject_query(request)
    view = await get_context(request).sessions.get(read_session_id(request), read_caller(request))
    return _send_view(request, view)


@docs(tags=["sessions"], summary="Close a session", responses=error_responses(503, other={404: UNKNOWN}))
@match_info_schema(schema_of(SessionPath, SchemaRole.PARAMETERS))
@response_schema(schema_of(SessionView), 200, description="The session is closed.")
async def close_session(request: web.Request) -> web.StreamResponse:
    """Close a session: its cells end, its interpreter and its files are deleted. A closed session does not change."""
    reject_query(request)
    view = await get_context(request).sessions.close(read_session_id(request), read_caller(request))
    return _send_view(request, view)


@docs(
    tags=["sessions"],
    summary="Run code in a session",
    produces=["application/json", "text/event-stream"],
    responses=_CELL_ERRORS,
)
@match_info_schema(schema_of(SessionPath, SchemaRole.PARAMETERS))
@headers_schema(schema_of(IdempotencyHeader, SchemaRole.PARAMETERS))
@json_schema(schema_of(CellRequest, SchemaRole.REQUEST_BODY))
@response_schema(schema_of(Result), 200, description="The result, or the events as they happen.")
async def session_eval(request: web.Request) -> web.StreamResponse:
    """Run code in a session, after the code that was sent before it, and return its result.

    With `Accept: text/event-stream` the response is a stream of events; the last one carries the result. If the
    client disconnects, the code is interrupted, unless the request has an `Idempotency-Key`."""
    cell = await _read_cell(request)
    starting = get_context(request).sessions.evaluate(read_session_id(request), cell, read_caller(request))
    return await run_and_respond(request, starting, cell.key)


@docs(
    tags=["sessions"],
    summary="Submit code to a session",
    responses=_CELL_ERRORS,
    headers={"202": {"Location": "Path of the execution."}},
)
@match_info_schema(schema_of(SessionPath, SchemaRole.PARAMETERS))
@headers_schema(schema_of(IdempotencyHeader, SchemaRole.PARAMETERS))
@json_schema(schema_of(CellRequest, SchemaRole.REQUEST_BODY))
@response_schema(schema_of(Accepted), 202, description="The code is accepted and will run.")
async def session_eval_async(request: web.Request) -> web.StreamResponse:
    """Accept code for a session and return the id of its execution, without waiting for it to run."""
    cell = await _read_cell(request)
    session_id = read_session_id(request)
    started = await get_context(request).sessions.evaluate(session_id, cell, read_caller(request))
    execution_id = started.id if isinstance(started, Run) else started
    return web.json_response(
        to_json(Accepted(execution_id=execution_id)),
        status=HTTPStatus.ACCEPTED,
        headers=accepted_headers(request, execution_id),
    )


@docs(tags=["sessions"], summary="Interrupt the code that runs", responses=_SESSION_ERRORS)
@match_info_schema(schema_of(SessionPath, SchemaRole.PARAMETERS))
@response_schema(schema_of(InterruptAnswer), 200, description="Whether code was running.")
async def interrupt_session(request: web.Request) -> web.StreamResponse:
    """Raise `KeyboardInterrupt` in the code that runs. The variables stay, and the code that waits runs next."""
    reject_query(request)
    interrupted = await get_context(request).sessions.interrupt(
        read_session_id(request), read_caller(request)
    )
    return web.json_response(to_json(InterruptAnswer(interrupted=interrupted)))


@docs(tags=["sessions"], summary="Restart the interpreter", responses=_SESSION_ERRORS)
@match_info_schema(schema_of(SessionPath, SchemaRole.PARAMETERS))
@response_schema(schema_of(SessionView), 200, description="The session has a new interpreter.")
async def restart_session(request: web.Request) -> web.StreamResponse:
    """Start a new interpreter. The files stay; the variables and the code that runs end."""
    reject_query(request)
    view = await get_context(request).sessions.restart(read_session_id(request), read_caller(request))
    return _send_view(request, view)


async def _read_cell(request: web.Request) -> Cell:
    """Parse the request for a cell. Asks first whether this replica handles it: a body that is read cannot be
    forwarded."""
    reject_query(request)
    reject_content_encoding(request)
    key = read_idempotency_key(request)
    await get_context(request).sessions.locate(read_session_id(request), read_caller(request))
    body = await parse_document(await read_body(request), CellRequest, what="body")
    return Cell(code=body.code, timeout_seconds=body.timeout_seconds, key=key)


def _send_view(request: web.Request, view: SessionView) -> web.Response:
    return web.json_response(to_json(public(request, view)))
