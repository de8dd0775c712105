"""Middleware that turns errors into JSON."""

import logging
from http import HTTPStatus
from typing import TypeVar

from aiohttp import web

from pyexec.errors import (
    CorruptLog,
    EngineError,
    ExecutorError,
    ImageUnavailable,
    InvalidRequest,
    KeyReused,
    NotEnded,
    QueueFull,
    QueueTimeout,
    SessionEnded,
    SetupFailed,
    TooLarge,
    TooManySessions,
    Unavailable,
    UnknownExecution,
    UnknownFile,
    UnknownSession,
    UnsupportedArchive,
    shorten,
)
from pyexec.web.connections import BrokenTransfer, abort_transfer, has_begun
from pyexec.web.context import Handler

E = TypeVar("E", bound=BaseException)
logger = logging.getLogger(__name__)

SESSION_RETRY_SECONDS = 30
"""How long a client should wait before it tries again to open a session: sessions rarely close."""

_STATUS: tuple[tuple[type[ExecutorError], HTTPStatus], ...] = (
    (TooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (UnsupportedArchive, HTTPStatus.UNSUPPORTED_MEDIA_TYPE),
    (InvalidRequest, HTTPStatus.BAD_REQUEST),
    (UnknownExecution, HTTPStatus.NOT_FOUND),
    (UnknownFile, HTTPStatus.NOT_FOUND),
    (UnknownSession, HTTPStatus.NOT_FOUND),
    (SessionEnded, HTTPStatus.GONE),
    (NotEnded, HTTPStatus.CONFLICT),
    (KeyReused, HTTPStatus.CONFLICT),
    (QueueFull, HTTPStatus.TOO_MANY_REQUESTS),
    (TooManySessions, HTTPStatus.TOO_MANY_REQUESTS),
    (SetupFailed, HTTPStatus.BAD_REQUEST),
    (ImageUnavailable, HTTPStatus.BAD_REQUEST),
    (QueueTimeout, HTTPStatus.SERVICE_UNAVAILABLE),
    (EngineError, HTTPStatus.SERVICE_UNAVAILABLE),
    (Unavailable, HTTPStatus.SERVICE_UNAVAILABLE),
)
"""HTTP status of each error. The first match applies, so subclasses come before their base class."""


@web.middleware
async def handle_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn errors into JSON: `{"error": message, "code": snake_case, "field": name}`.

    An unexpected error is logged with its traceback; the client gets no details. If the response has begun, the
    connection is aborted instead: JSON in the middle of a body would look like a part of it."""
    try:
        return await handler(request)
    except ConnectionError:  # the client has disconnected
        raise
    except Exception as error:
        if has_begun(request):
            raise _abort(request, error) from error
        response = _error_response(request, error)
        forget_frames(error)
        return response


def forget_frames(error: E) -> E:
    """Drop the tracebacks of an error and of its causes, which nothing reads any more.

    The frames of a handler hold the request or the output, which can have 16 MiB and more. They also hold the error: in
    a variable of aiohttp or anyio, or in the future of the thread that raised it. This cycle would keep all of it until
    a garbage collection, which is rare."""
    cause: BaseException | None = error
    while cause is not None:
        cause.__traceback__ = None
        cause = cause.__cause__ or cause.__context__
    return error


def _abort(request: web.Request, error: Exception) -> BrokenTransfer:
    is_expected = isinstance(error, ExecutorError)
    logger.error(
        "%s %s: response aborted: %s",
        request.method,
        request.path,
        error,
        exc_info=None if is_expected else error,
    )
    abort_transfer(request)
    return BrokenTransfer(_status_of(error) if is_expected else HTTPStatus.INTERNAL_SERVER_ERROR)


def _error_response(request: web.Request, error: Exception) -> web.Response:
    if isinstance(error, ExecutorError):
        return _executor_error(error)
    if isinstance(error, web.HTTPException):
        if error.status < HTTPStatus.BAD_REQUEST:
            raise error
        return _http_error(request, error)
    logger.error("%s %s failed with an unexpected error", request.method, request.path, exc_info=error)
    text = "internal server error; see the server log"
    return json_error(HTTPStatus.INTERNAL_SERVER_ERROR, text, "internal")


def _status_of(error: Exception) -> HTTPStatus:
    return next((s for kind, s in _STATUS if isinstance(error, kind)), HTTPStatus.INTERNAL_SERVER_ERROR)


def _executor_error(error: ExecutorError) -> web.Response:
    status = _status_of(error)
    if status is HTTPStatus.INTERNAL_SERVER_ERROR:
        traceback_of = None if isinstance(error, CorruptLog) else error
        logger.error("request failed: %s", error, exc_info=traceback_of)
    extra = {}
    if isinstance(error, InvalidRequest) and error.field is not None:
        extra["field"] = error.field
    if isinstance(error, Unavailable) and error.execution_id is not None:
        extra["execution_id"] = error.execution_id
    response = json_error(status, str(error), error.code, **extra)
    if isinstance(error, QueueFull):
        response.headers["Retry-After"] = str(error.retry_after_seconds)
    elif isinstance(error, TooManySessions):
        response.headers["Retry-After"] = str(SESSION_RETRY_SECONDS)
    return response


def _http_error(request: web.Request, error: web.HTTPException) -> web.Response:
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        text = f"{shorten(request.path)} does not allow {shorten(request.method)}; allowed: {allowed}"
        response = json_error(HTTPStatus.METHOD_NOT_ALLOWED, text, "method_not_allowed")
        response.headers["Allow"] = allowed
        return response
    if error.status == HTTPStatus.NOT_FOUND:
        return json_error(
            HTTPStatus.NOT_FOUND, f"no endpoint at {shorten(request.path)}; see /docs", "not_found"
        )
    phrase = HTTPStatus(error.status).phrase
    return json_error(HTTPStatus(error.status), error.text or phrase, phrase.lower().replace(" ", "_"))


def json_error(status: HTTPStatus, text: str, code: str, **extra: str) -> web.Response:
    """Return an error as JSON."""
    return web.json_response({"error": text, "code": code, **extra}, status=status)
