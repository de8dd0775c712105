"""Everything this client raises by itself. Wrong arguments are ordinary `ValueError` and `TypeError`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar


class PyexecError(Exception):
    """The root of what the client raises: catch it to catch everything."""


class ConnectionFailed(PyexecError):
    """The server could not be reached, or the connection to it broke and could not be made again."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"cannot reach the server at {url}: {reason}")
        self.url = url
        self.reason = reason


class InvalidAnswer(PyexecError):
    """Whatever answered does not speak this API: a wrong address, a proxy, or a server of another kind."""


class ApiError(PyexecError):
    """The server answered with an error.

    `status` is the HTTP status, `message` the server's sentence, `code` its snake_case name, `field` the
    request's field that is to blame (if any), `body` the raw answer, `retry_after` seconds (or None).
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
    """400, 413, 415, 422: the request is at fault; sending it again will not help."""

    default_code = "invalid_request"


class TooLarge(InvalidRequest):
    """413: the archive or its contents are over a limit of the server or of the request."""

    default_code = "too_large"


class Unauthorized(ApiError):
    """401, 403: the token is missing, wrong, or not enough."""

    default_code = "unauthorized"


class NotFound(ApiError):
    """404: no such execution (never was, or was removed some time after its end), or no such file of it."""

    default_code = "not_found"


class Conflict(ApiError):
    """409: the Idempotency-Key was used before with another request, or files are asked for before the end."""

    default_code = "conflict"


class QueueFull(ApiError):
    """429: the server has no room now; `retry_after` says in how many seconds to try again."""

    default_code = "queue_full"


class Unavailable(ApiError):
    """502, 503, 504: the server, or something that it needs, is away for now."""

    default_code = "unavailable"


class ServerError(ApiError):
    """Another 5xx: the server's own fault."""

    default_code = "server_error"


_BY_STATUS: dict[int, type[ApiError]] = {
    400: InvalidRequest,
    401: Unauthorized,
    403: Unauthorized,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
    415: InvalidRequest,
    422: InvalidRequest,
    429: QueueFull,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}


def error_from_answer(status: int, headers: Mapping[str, str], body: bytes) -> ApiError:
    """The typed error for an HTTP answer of 4xx or 5xx, whatever its body looks like."""
    kind = _BY_STATUS.get(status, ServerError if status >= 500 else ApiError)
    details = _details(body)
    message = details.get("error")
    return kind(
        status,
        message if isinstance(message, str) and message else _plain_message(status, body),
        code=_text(details.get("code")),
        field=_text(details.get("field")),
        body=body,
        retry_after=_seconds(headers.get("Retry-After")),
    )


def _details(body: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(body)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _plain_message(status: int, body: bytes) -> str:
    """For an answer that is not ours (a proxy's page): the status and its first line."""
    lines = body[:2000].decode("utf-8", "replace").strip().splitlines()
    return f"HTTP {status}: {lines[0][:200]}" if lines else f"HTTP {status}"


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _seconds(value: str | None) -> float | None:
    """`Retry-After` in seconds; its other form, a date, is not worth comparing two clocks for."""
    return float(value) if value is not None and value.strip().isdecimal() else None
