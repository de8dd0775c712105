"""The errors that the client raises. Invalid arguments raise `ValueError` or `TypeError`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from .json_parser import parse_json


class PyexecError(Exception):
    """Base class of all errors of this client. Errors can be pickled, so that a process pool can return them."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self.args, vars(self))


def _restored(
    kind: type[PyexecError], args: tuple[object, ...], attributes: dict[str, object]
) -> PyexecError:
    error = kind.__new__(kind)
    error.args = args
    vars(error).update(attributes)
    return error


class ClientClosed(PyexecError):
    """The client was used after it had been closed, or was closed during the call."""


class ConnectionFailed(PyexecError):
    """The server cannot be reached, or the connection was lost and reconnecting failed."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"cannot reach the server at {url}: {reason}")
        self.url = url
        self.reason = reason


class InvalidAnswer(PyexecError):
    """The response does not follow this API. The URL may be wrong, or a proxy may have answered."""


@contextmanager
def reading(what: str, data: object) -> Iterator[None]:
    """Raise InvalidAnswer if `data` is not a JSON object, or if the block finds that it is not `what`."""
    text = repr(data)
    excerpt = text if len(text) <= 200 else text[:200] + "…"
    if not isinstance(data, dict):
        raise InvalidAnswer(f"invalid response from the server: not {what}: {excerpt}")
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidAnswer(
            f"invalid response from the server: not {what}: {error!r} in {excerpt}"
        ) from error


class ApiError(PyexecError):
    """The server answered with an error.

    `status` is the HTTP status, `message` the server's error message, `code` its snake_case error code,
    `field` the request field that is wrong (or None), `body` the raw response body, and `retry_after` the
    seconds to wait before a retry (or None).
    """

    default_code: ClassVar[str] = "error"

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        field: str | None = None,
        body: bytes = b"",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{message} ({field})" if field and field not in message else message)
        self.status = status
        self.message = message
        self.code = code or self.default_code
        self.field = field
        self.body = body
        self.retry_after = retry_after


class InvalidRequest(ApiError):
    """400, 413, 415, 422: the request is invalid; a retry cannot succeed."""

    default_code = "invalid_request"


class SessionClosed(ApiError):
    """410: the session is closed; `message` says why. Open a new one."""

    default_code = "session_closed"


class TooLarge(InvalidRequest):
    """413: the archive or its contents exceed a limit of the server or of the request."""

    default_code = "too_large"


class Unauthorized(ApiError):
    """401, 403: the token is missing, invalid, or lacks permission."""

    default_code = "unauthorized"


class NotFound(ApiError):
    """404: no such execution, session or file. Ended executions are deleted after the retention period."""

    default_code = "not_found"


class Conflict(ApiError):
    """409: the Idempotency-Key was used with another request, or files were requested before the end."""

    default_code = "conflict"


class QueueFull(ApiError):
    """429: the server has no capacity now; `retry_after` is the number of seconds to wait."""

    default_code = "queue_full"


class Unavailable(ApiError):
    """502, 503, 504: the server, or a service that it needs, is temporarily unavailable."""

    default_code = "unavailable"


class ServerError(ApiError):
    """Other 5xx: an internal error of the server."""

    default_code = "server_error"


_BY_STATUS: dict[int, type[ApiError]] = {
    400: InvalidRequest,
    401: Unauthorized,
    403: Unauthorized,
    404: NotFound,
    409: Conflict,
    410: SessionClosed,
    413: TooLarge,
    415: InvalidRequest,
    422: InvalidRequest,
    429: QueueFull,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}


def error_from_response(status: int, headers: Mapping[str, str], body: bytes) -> ApiError:
    """Return the typed error for an HTTP error response; the body may have any form."""
    kind = _BY_STATUS.get(status, ServerError if status >= 500 else ApiError)
    details = _details(body)
    message = details.get("error")
    return kind(
        status,
        message if isinstance(message, str) and message else _fallback_message(status, headers, body),
        code=_text(details.get("code")),
        field=_text(details.get("field")),
        body=body,
        retry_after=_seconds(headers.get("Retry-After")),
    )


def _details(body: bytes) -> dict[str, Any]:
    try:
        parsed = parse_json(body)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _fallback_message(status: int, headers: Mapping[str, str], body: bytes) -> str:
    """Return the HTTP status, and the target of a redirect or the first line of a body that is not JSON."""
    target = headers.get("Location")
    if 300 <= status < 400 and target:
        return f"HTTP {status}: redirect to {target[:200]}; the client does not follow redirects"
    lines = body[:2000].decode("utf-8", "replace").strip().splitlines()
    return f"HTTP {status}: {lines[0][:200]}" if lines else f"HTTP {status}"


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _seconds(value: str | None) -> float | None:
    """Parse `Retry-After` in seconds. Ignore its date form, which depends on the server's clock."""
    return float(value) if value is not None and value.strip().isdecimal() else None
