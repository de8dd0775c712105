"""Request parameters and response bodies of the API, and the parsing of parameters.

Descriptions and examples of the fields are in `openapi/descriptions.py`. Keys of a field's metadata: `name` (header
name), `minimum` and `maximum`, `nullable` (always present, may be null), `media_type`."""

import difflib
import re
from collections.abc import Callable
from enum import Enum
from typing import Any, TypeVar, get_args

import anyio.to_thread
import attrs
from aiohttp import web
from attrs import field, frozen

from pyexec.domain.execution import Status
from pyexec.domain.result import Summary
from pyexec.domain.spec import Metadata
from pyexec.errors import QUOTE_LENGTH_MAX, InvalidRequest, quote, shorten
from pyexec.json_parser import parse_json
from pyexec.web.request_parser import parse_request

T = TypeVar("T")
KEY_LENGTH_MAX = 255
PARSE_INLINE_BYTES_MAX = 64 * 1024
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?", re.IGNORECASE)
_NUMBER_LENGTH_MAX = 60
_BOOLEANS = {"0": False, "1": True, "false": False, "true": True}


class OutputStream(Enum):
    """Output stream of a program."""

    STDOUT = "stdout"
    STDERR = "stderr"


@frozen(kw_only=True)
class ExecutionPath:
    """Path parameters of an execution."""

    id: str


@frozen(kw_only=True)
class OutputFilePath(ExecutionPath):
    """Path parameters of an output file."""

    path: str


@frozen(kw_only=True)
class WaitQuery:
    """Query of `GET /executions/{id}`."""

    wait: float = field(default=0.0, metadata={"minimum": 0, "maximum": 60})


@frozen(kw_only=True)
class ListQuery:
    """Query of `GET /executions`."""

    status: Status | None = None
    session_id: str | None = None
    limit: int = field(default=50, metadata={"minimum": 1, "maximum": 500})
    cursor: str | None = None
    wait: float = field(default=0.0, metadata={"minimum": 0, "maximum": 60})


@frozen(kw_only=True)
class LogsQuery:
    """Query of `GET /executions/{id}/logs`."""

    stream: OutputStream | None = None
    follow: bool = False


@frozen(kw_only=True)
class EventsQuery:
    """Query of `GET /executions/{id}/events`."""

    follow: bool = True


@frozen(kw_only=True)
class IdempotencyHeader:
    """Header that makes a POST safe to repeat."""

    key: str | None = field(default=None, metadata={"name": "Idempotency-Key"})


@frozen(kw_only=True)
class LastEventIdHeader:
    """Header that resumes an event stream."""

    last_event_id: str | None = field(default=None, metadata={"name": "Last-Event-ID"})


@frozen(kw_only=True)
class IfNoneMatchHeader:
    """Header that asks for a list only if it has changed."""

    tag: str | None = field(default=None, metadata={"name": "If-None-Match"})


@frozen(kw_only=True)
class Parts:
    """Parts of a multipart upload."""

    metadata: Metadata = field(factory=Metadata)
    tar: bytes = field(metadata={"media_type": "application/x-tar"})


@frozen(kw_only=True)
class Accepted:
    """Response to an asynchronous submission."""

    execution_id: str


@frozen(kw_only=True)
class KillAnswer:
    """Response to a kill."""

    status: Status


@frozen(kw_only=True)
class Listing:
    """Page of executions, newest first."""

    executions: tuple[Summary, ...]
    next_cursor: str | None = field(default=None, metadata={"nullable": True})


@frozen(kw_only=True)
class Health:
    """Response of the liveness check."""

    status: str


@frozen(kw_only=True)
class Readiness:
    """Response of the readiness check when the server accepts work.

    `sandbox_reuse` is "on" if programs of one tenant run in the same sandbox, one after another."""

    status: str
    sandbox_reuse: str
    warnings: tuple[str, ...] | None = None


@frozen(kw_only=True)
class Problem:
    """Body of every error response."""

    error: str
    code: str
    field: str | None = None
    execution_id: str | None = None


@frozen(kw_only=True)
class Unreadiness(Problem):
    """Response of the readiness check when the server accepts no work."""

    status: str | None = None
    reasons: dict[str, str] | None = None


@frozen(kw_only=True)
class Message:
    """Server-Sent Event."""

    event: str
    id: str
    data: str


async def parse_document(text: bytes, cls: type[T], *, what: str) -> T:
    """Parse JSON from a request as `cls`; raise `InvalidRequest` if it is malformed."""
    return await _in_thread_if_large(text, lambda: parse_request(parse_json(text, what=what), cls, what=what))


async def check_document(text: bytes, *, what: str) -> Any:
    """Return JSON that another library parses afterwards. Raise `InvalidRequest` as `parse_json` does."""
    return await _in_thread_if_large(text, lambda: parse_json(text, what=what))


async def _in_thread_if_large(text: bytes, parse: Callable[[], T]) -> T:
    """A thread parses a large document, so that other requests are not delayed."""
    return await anyio.to_thread.run_sync(parse) if len(text) > PARSE_INLINE_BYTES_MAX else parse()


def read_query(request: web.Request, cls: type[T]) -> T:
    """Parse the query string as `cls`; raise `InvalidRequest` for an unknown parameter or a wrong value."""
    _check_names(request, [parameter.name for parameter in attrs.fields(cls)])  # type: ignore[arg-type]
    values = {}
    for parameter in attrs.fields(cls):  # type: ignore[arg-type]
        text = request.query.get(parameter.name)
        if text is not None:
            values[parameter.name] = _parse(text, parameter)
    return cls(**values)


def reject_query(request: web.Request) -> None:
    """Raise `InvalidRequest` if the request has query parameters, for an endpoint that takes none."""
    _check_names(request, [])


def _check_names(request: web.Request, known: list[str]) -> None:
    """Raise `InvalidRequest` for an unknown parameter, and for one that appears twice: either value may be meant."""
    for name in request.query:
        if name in known:
            if len(request.query.getall(name)) > 1:
                raise InvalidRequest(f"query parameter {name!r} appears more than once", field=name)
            continue
        # A longer name is not a typing error, and the search takes time with the square of the length.
        near = difflib.get_close_matches(name[:QUOTE_LENGTH_MAX], known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"this endpoint takes {', '.join(known) or 'none'}"
        raise InvalidRequest(
            f"unknown query parameter {quote(name)}; {hint}",
            field=shorten(name),
            code="unknown_field",
        )


def read_header(request: web.Request, name: str) -> str | None:
    """Return the value of a header; raise `InvalidRequest` if it appears twice: either value may be meant."""
    values = request.headers.getall(name, [])
    if len(values) > 1:
        raise InvalidRequest(f"the header {name} appears more than once", field=name)
    return values[0] if values else None


def read_idempotency_key(request: web.Request) -> str | None:
    """Return the `Idempotency-Key` header; raise `InvalidRequest` if it is empty, too long, or appears twice."""
    key = read_header(request, "Idempotency-Key")
    if key is not None and not 0 < len(key) <= KEY_LENGTH_MAX:
        raise InvalidRequest(
            f"Idempotency-Key must have 1 to {KEY_LENGTH_MAX} characters", field="Idempotency-Key"
        )
    return key


def _parse(text: str, parameter: "attrs.Attribute[Any]") -> Any:
    name = parameter.name
    kind: Any = next((arg for arg in get_args(parameter.type) if arg is not type(None)), parameter.type)
    if kind is str:
        return text
    if kind is bool:
        if text not in _BOOLEANS:
            raise InvalidRequest(f"{name} must be 0 or 1, not {quote(text)}", field=name)
        return _BOOLEANS[text]
    if issubclass(kind, Enum):
        allowed = [member.value for member in kind]
        if text not in allowed:
            raise InvalidRequest(f"{name} must be one of {', '.join(allowed)}, not {quote(text)}", field=name)
        return kind(text)
    minimum, maximum = parameter.metadata["minimum"], parameter.metadata["maximum"]
    value = _number(text, kind)
    if value is None or not minimum <= value <= maximum:
        wanted = "a whole number" if kind is int else "a number"
        raise InvalidRequest(
            f"{name} must be {wanted} from {minimum:g} to {maximum:g}, not {quote(text)}", field=name
        )
    return value


def _number(text: str, kind: type[int] | type[float]) -> float | None:
    if len(text) > _NUMBER_LENGTH_MAX or _NUMBER.fullmatch(text) is None:
        return None
    try:
        return kind(text)
    except ValueError:  # a fraction where a whole number is required
        return None
