"""Endpoints that run code: an archive, synchronously or asynchronously, or source code as JSON."""

import io
import posixpath
import re
import tarfile
from collections.abc import AsyncIterator, Awaitable, Sequence
from http import HTTPStatus

import anyio
import anyio.to_thread
from aiohttp import web
from aiohttp_apispec import docs, form_schema, headers_schema, json_schema, response_schema

from pyexec.codec import to_json
from pyexec.domain.event_stream import Position
from pyexec.domain.result import Result
from pyexec.domain.spec import PATH_LENGTH_MAX, EvalRequest, Metadata, SourceFile
from pyexec.errors import InvalidRequest, quote
from pyexec.services.active_runs import Run
from pyexec.services.uploads import Upload
from pyexec.web.context import Context, accepted_headers, get_context, read_caller, read_tenant
from pyexec.web.headers import EVENT_STREAM, prefers
from pyexec.web.multipart import read_body, read_upload, reject_content_encoding
from pyexec.web.openapi.schema_builder import SchemaRole, error_responses, schema_of
from pyexec.web.schemas import (
    Accepted,
    IdempotencyHeader,
    Parts,
    parse_document,
    read_idempotency_key,
    reject_query,
)
from pyexec.web.sse import send_events
from pyexec.web.streaming import send_result

PYTHON_MINOR_MIN = 8
FILES_MAX = 1000
"""Maximum number of source files in an eval request."""
_ENCODING = re.compile(
    r"\ufeff?(?:[ \t\f]*(?:#[^\r\n]*)?(?:\r\n?|\n))??"  # perhaps a first line that is blank or a comment
    r"[ \t\f]*#[^\r\n]*?coding[:=][ \t]*(?!(?i:utf[-_]?8)\b)([-\w.]+)",
    re.ASCII,
)
"""The declaration of an encoding other than UTF-8 in one of the first two lines of a script."""
_DECLARATION_END_MAX = 64 * 1024
"""Where in a script a declaration ends at the latest. While a regular expression searches, no other thread runs: in a
comment of 15 MB, for 0.6 s."""
_VERSION = re.compile(r"3\.(?P<minor>0|[1-9][0-9]?)", re.ASCII)
_ERRORS = error_responses(400, 409, 413, 415, 429, 503)
_RESULT_OR_EVENTS = ["application/json", "text/event-stream"]


@docs(
    tags=["run"],
    summary="Run an archive",
    produces=_RESULT_OR_EVENTS,
    responses=_ERRORS,
)
@headers_schema(schema_of(IdempotencyHeader, SchemaRole.PARAMETERS))
@form_schema(schema_of(Parts, SchemaRole.REQUEST_BODY))
@response_schema(schema_of(Result), 200, description="The result, or the events as they happen.")
async def exec_sync(request: web.Request) -> web.StreamResponse:
    """Run an archive, wait for the program to end, and return its result.

    With `Accept: text/event-stream` the response is a stream of events; the last one carries the result. If the
    client disconnects, the execution is killed, unless the request has an `Idempotency-Key`. Send the metadata before
    the archive: the archive is then streamed directly into the sandbox."""
    reject_query(request)
    async with read_upload(request, Metadata) as body:
        upload = Upload(
            metadata=body.metadata,
            archive=body.archive,
            key=read_idempotency_key(request),
            identity="/api/v1/exec",
            tenant=read_tenant(request),
        )
        return await run_and_respond(request, get_context(request).submissions.run(upload), upload.key)


@docs(
    tags=["run"],
    summary="Submit an archive",
    responses=_ERRORS,
    headers={"202": {"Location": "Path of the execution."}},
)
@headers_schema(schema_of(IdempotencyHeader, SchemaRole.PARAMETERS))
@form_schema(schema_of(Parts, SchemaRole.REQUEST_BODY))
@response_schema(schema_of(Accepted), 202, description="The execution is accepted and will run.")
async def exec_async(request: web.Request) -> web.StreamResponse:
    """Accept an archive and return the id of its execution, without waiting for it to run."""
    reject_query(request)
    async with read_upload(request, Metadata) as body:
        upload = Upload(
            metadata=body.metadata,
            archive=body.archive,
            key=read_idempotency_key(request),
            identity="/api/v1/exec/async",
            tenant=read_tenant(request),
        )
        execution_id = await get_context(request).submissions.submit(upload)
    return web.json_response(
        to_json(Accepted(execution_id=execution_id)),
        status=HTTPStatus.ACCEPTED,
        headers=accepted_headers(request, execution_id),
    )


@docs(tags=["run"], summary="Run source code", produces=_RESULT_OR_EVENTS, responses=_ERRORS)
@headers_schema(schema_of(IdempotencyHeader, SchemaRole.PARAMETERS))
@json_schema(schema_of(EvalRequest, SchemaRole.REQUEST_BODY))
@response_schema(schema_of(Result), 200, description="The result, or the events as they happen.")
async def evaluate(request: web.Request) -> web.StreamResponse:
    """Run source code that is sent as JSON: a single script, or several files.

    In all other respects this endpoint behaves like `/api/v1/exec/sync`."""
    reject_query(request)
    reject_content_encoding(request)
    body = await parse_document(await read_body(request), EvalRequest, what="body")
    identity = f"/api/v1/eval {body.eval_last_expr}"
    upload = eval_upload(
        body, key=read_idempotency_key(request), identity=identity, tenant=read_tenant(request)
    )
    return await run_and_respond(request, get_context(request).submissions.run(upload), upload.key)


async def run_and_respond(
    request: web.Request, starting: Awaitable[Run | str], key: str | None
) -> web.StreamResponse:
    """Start an execution and wait for its result. `starting` returns its run, or the id of the execution that the
    idempotency key names.

    If the client disconnects, the execution is killed, unless the request has an idempotency key. A shutdown of this
    replica also cuts the connection, but kills nothing: the client can look up the execution by its id."""
    context = get_context(request)
    started = await starting
    try:
        if isinstance(started, Run):
            return await _respond_from_run(request, context, started)
        return await _respond_from_log(request, context, started)
    except (anyio.get_cancelled_exc_class(), ConnectionError):
        if key is None and isinstance(started, Run) and not context.submissions.closed:
            with anyio.CancelScope(shield=True):
                await context.executions.request_kill(started.id, read_caller(request))
        raise


async def _respond_from_run(request: web.Request, context: Context, run: Run) -> web.StreamResponse:
    """Respond from the memory of this replica, which runs the execution."""
    if prefers(request, EVENT_STREAM):
        items = context.executions.known_items(run.id, Position(), read_caller(request))
        return await send_events(request, run.id, items)
    await run.inactive.wait()
    if not run.has_ended:  # another replica has adopted it
        return await _respond_from_log(request, context, run.id)
    return await send_result(request, run.execution, run.output_log)


async def _respond_from_log(request: web.Request, context: Context, execution_id: str) -> web.StreamResponse:
    """Respond from the event log, for an execution that may run on another replica."""
    if prefers(request, EVENT_STREAM):
        items = await context.executions.items(execution_id, Position(), read_caller(request))
        return await send_events(request, execution_id, items)
    caller = read_caller(request)
    execution = await context.executions.wait_until_ended(execution_id, caller)
    async with context.executions.output(execution, caller) as output_log:
        return await send_result(request, execution, output_log)


def eval_upload(body: EvalRequest, *, key: str | None, identity: str, tenant: str) -> Upload:
    """Convert an eval request to an upload; raise `InvalidRequest` if its fields contradict each other."""
    metadata, files = _files_of(body)
    return Upload(
        metadata=metadata,
        archive=_tar_of(files, body.entrypoint),
        key=key,
        identity=identity,
        code_field="files" if body.code is None else "code",
        texts=files.values(),
        eval_last_expr=body.eval_last_expr,
        tenant=tenant,
    )


def archive_upload(metadata: Metadata, files: Sequence[SourceFile], *, identity: str, tenant: str) -> Upload:
    """Convert source files and options to an upload; raise `InvalidRequest` for a wrong file name."""
    _check_names(files)
    contents = {file.name: file.content for file in files}
    return Upload(
        metadata=metadata,
        archive=_tar_of(contents, metadata.entrypoint),
        identity=identity,
        code_field="files",
        texts=contents.values(),
        tenant=tenant,
    )


def _files_of(body: EvalRequest) -> tuple[Metadata, dict[str, str]]:
    """Convert an eval request to metadata and files; raise `InvalidRequest` if its fields contradict each other."""
    if body.code is None and not body.files:
        raise InvalidRequest(
            'nothing to run; send either code or files, such as {"code": "print(1)"} '
            'or {"files": [{"name": "main.py", "content": "print(1)"}]}',
            field="code",
        )
    if body.code is not None and body.files:
        raise InvalidRequest("send either code or files, not both", field="code")
    if body.docker_image and body.python_version is not None:
        raise InvalidRequest("send either docker_image or python_version, not both", field="python_version")
    _check_names(body.files)
    files = {"main.py": body.code} if body.code is not None else {f.name: f.content for f in body.files}
    metadata = Metadata(
        entrypoint=body.entrypoint,
        docker_image=body.docker_image if body.python_version is None else _image_of(body.python_version),
        requirements_txt=body.requirements_txt,
        inline_requirements=body.inline_requirements,
        pre_commands=body.pre_commands,
        stdin=body.stdin,
        env_vars=body.env_vars,
        script_args=body.script_args,
        output_files=body.output_files,
        capture_displays=body.capture_displays,
        webhook_url=body.webhook_url,
        config=body.config,
    )
    return metadata, files


def _image_of(python_version: str) -> str:
    version = _VERSION.fullmatch(python_version)
    if version is None or int(version["minor"]) < PYTHON_MINOR_MIN:
        raise InvalidRequest(
            f"python_version must have the form 3.12 and be at least 3.{PYTHON_MINOR_MIN}, "
            f"not {quote(python_version)}",
            field="python_version",
        )
    return f"python:{python_version}-slim"


def _check_names(files: Sequence[SourceFile]) -> None:
    """Reject names that the archive check would reject later; these errors name the field of the request."""
    if len(files) > FILES_MAX:
        raise InvalidRequest(
            f"files has {len(files)} items; at most {FILES_MAX} are allowed; send more files as an archive",
            field="files",
        )
    seen: set[str] = set()
    for index, file in enumerate(files):
        name, where = file.name, f"files[{index}].name"
        if len(name) > PATH_LENGTH_MAX:
            raise InvalidRequest(
                f"{quote(name)} has {len(name)} characters; at most {PATH_LENGTH_MAX} are allowed",
                field=where,
            )
        if not name or "\0" in name or name.endswith("/"):
            raise InvalidRequest(
                f"{quote(name)} is not a file name: it must not be empty, contain NUL or end with a slash",
                field=where,
            )
        if name.startswith("/"):
            raise InvalidRequest(
                f"{quote(name)} is an absolute path; use a path relative to /work", field=where
            )
        if ".." in name.split("/"):
            raise InvalidRequest(f"{quote(name)} is outside /work; use a path relative to /work", field=where)
        if posixpath.normpath(name) in seen:
            raise InvalidRequest(f"{quote(name)} appears twice", field=where)
        seen.add(posixpath.normpath(name))


async def _tar_of(files: dict[str, str], entrypoint: str | None) -> AsyncIterator[bytes]:
    """Yield the files as a tar. A thread builds it, because large files take a while."""
    yield await anyio.to_thread.run_sync(_build_tar, files, entrypoint)


def _build_tar(files: dict[str, str], entrypoint: str | None) -> bytes:
    script = None if entrypoint is None else posixpath.normpath(entrypoint)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            is_script = name.endswith(".py") or posixpath.normpath(name) == script
            data = _script_bytes(content) if is_script else content.encode()
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def _script_bytes(content: str) -> bytes:
    """Return a script as UTF-8. Replace its declaration of another encoding (PEP 263): Python would decode the file
    with it."""
    if declared := _ENCODING.match(content, 0, _DECLARATION_END_MAX):
        content = f"{content[: declared.start(1)]}utf-8{content[declared.end(1) :]}"
    return content.encode()
