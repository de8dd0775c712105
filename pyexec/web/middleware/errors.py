"""Errors as answers: `{"error": sentence, "code": snake_case, "field": where}` with the status that fits."""

import hmac
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from aiohttp import web

from pyexec.errors import (
    CorruptLog,
    ExecutorError,
    InvalidRequest,
    KeyReused,
    NotEnded,
    QueueFull,
    TooLarge,
    Unavailable,
    UnknownExecution,
    UnknownFile,
    UnsupportedArchive,
)
from pyexec.web.context import TOKENS
from pyexec.web.middleware.csrf import is_for_another_site

logger = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_STATUS: tuple[tuple[type[ExecutorError], HTTPStatus], ...] = (
    (TooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (UnsupportedArchive, HTTPStatus.UNSUPPORTED_MEDIA_TYPE),
    (InvalidRequest, HTTPStatus.BAD_REQUEST),
    (UnknownExecution, HTTPStatus.NOT_FOUND),
    (UnknownFile, HTTPStatus.NOT_FOUND),
    (NotEnded, HTTPStatus.CONFLICT),
    (KeyReused, HTTPStatus.CONFLICT),
    (QueueFull, HTTPStatus.TOO_MANY_REQUESTS),
    (Unavailable, HTTPStatus.SERVICE_UNAVAILABLE),
)
OPEN_PATHS = frozenset({"", "/health", "/ready", "/docs", "/openapi.json"})
"""Health checks, and what a browser opens before it has a token: pages that tell of no execution and hold no secret."""


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error becomes an answer; what we did not expect is logged with its trace, and shown without."""
    try:
        return await handler(request)
    except ExecutorError as error:
        return _answer(error)
    except web.HTTPException as error:
        if error.status < HTTPStatus.BAD_REQUEST:
            raise
        return _answer_http(request, error)
    except ConnectionError:  # the caller has gone: there is nobody to answer
        raise
    except Exception:
        logger.exception("%s %s failed", request.method, request.path)
        return _json(
            HTTPStatus.INTERNAL_SERVER_ERROR, "the server made a mistake; its log says more", "internal"
        )


@web.middleware
async def require_token(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Where tokens are set, only requests that bear one pass; health checks and the API's pages stay open."""
    tokens = request.app[TOKENS]
    if tokens and not is_open(request.path):
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        known = [hmac.compare_digest(_bytes(given.strip()), _bytes(token)) for token in tokens]
        if scheme.lower() != "bearer" or not any(known):
            answer = _json(
                HTTPStatus.UNAUTHORIZED, "send Authorization: Bearer and a valid token", "unauthorized"
            )
            answer.headers["WWW-Authenticate"] = "Bearer"
            return answer
    if not tokens and is_for_another_site(request):
        text = "a page of another site may not send this; where no tokens are set, anybody's page could"
        return _json(HTTPStatus.FORBIDDEN, text, "cross_site")
    return await handler(request)


def is_open(path: str) -> bool:
    """Whether a path is for everybody."""
    return path.rstrip("/") in OPEN_PATHS or path.startswith("/docs/")


def _bytes(text: str) -> bytes:
    """A header as it came: what was not UTF-8 in it, too."""
    return text.encode("utf-8", "surrogateescape")


def _answer(error: ExecutorError) -> web.Response:
    status = next((s for kind, s in _STATUS if isinstance(error, kind)), HTTPStatus.INTERNAL_SERVER_ERROR)
    if status is HTTPStatus.INTERNAL_SERVER_ERROR:
        mistake = None if isinstance(error, CorruptLog) else error
        logger.error("a request failed: %s", error, exc_info=mistake)
    extra = {}
    if isinstance(error, InvalidRequest) and error.field is not None:
        extra["field"] = error.field
    if isinstance(error, Unavailable) and error.execution_id is not None:
        extra["execution_id"] = error.execution_id
    answer = _json(status, str(error), error.code, **extra)
    if isinstance(error, QueueFull):
        answer.headers["Retry-After"] = str(error.retry_after_seconds)
    return answer


def _answer_http(request: web.Request, error: web.HTTPException) -> web.Response:
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        text = f"{request.path} does not take {request.method}; it takes {allowed}"
        answer = _json(HTTPStatus.METHOD_NOT_ALLOWED, text, "method_not_allowed")
        answer.headers["Allow"] = allowed
        return answer
    if error.status == HTTPStatus.NOT_FOUND:
        return _json(HTTPStatus.NOT_FOUND, f"there is nothing at {request.path}; see /docs", "not_found")
    phrase = HTTPStatus(error.status).phrase
    return _json(HTTPStatus(error.status), error.text or phrase, phrase.lower().replace(" ", "_"))


def _json(status: HTTPStatus, text: str, code: str, **extra: str) -> web.Response:
    return web.json_response({"error": text, "code": code, **extra}, status=status)
