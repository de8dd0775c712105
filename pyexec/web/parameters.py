"""What comes in paths, queries and headers: read by the same classes that describe it."""

import re
from enum import Enum
from typing import Any, TypeVar, get_args

import attrs
from aiohttp import web
from attrs import field, frozen

from pyexec.domain.execution import Status
from pyexec.domain.field_docs import described
from pyexec.domain.result import ID_FIELD
from pyexec.errors import InvalidRequest
from pyexec.web.sse import POSITION_PATTERN

T = TypeVar("T")
KEY_LENGTH_MAX = 255
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?", re.IGNORECASE)
_FLAGS = {"0": False, "1": True, "false": False, "true": True}


class Printed(Enum):
    """The streams that a program prints to."""

    STDOUT = "stdout"
    STDERR = "stderr"


@frozen(kw_only=True)
class OneExecution:
    """An execution, named by the path."""

    id: str = field(metadata=ID_FIELD)


@frozen(kw_only=True)
class OneFile(OneExecution):
    """A file of an execution."""

    path: str = field(metadata=described("The file's path, as the result lists it.", "out/plot.png"))


@frozen(kw_only=True)
class Waiting:
    """How long an answer may be held."""

    wait: float = field(
        default=0.0,
        metadata=described("Seconds to hold the answer until it has ended.", 10, least=0, most=60),
    )


@frozen(kw_only=True)
class Paging:
    """Which part of a list."""

    status: Status | None = field(default=None, metadata=described("Only those with this status."))
    limit: int = field(default=50, metadata=described("How many at most.", 50, least=1, most=500))
    cursor: str | None = field(
        default=None, metadata=described("The next_cursor of the page before; else the first page.")
    )


@frozen(kw_only=True)
class Reading:
    """Which output, and until when."""

    stream: Printed | None = field(default=None, metadata=described("Only this stream; else both."))
    follow: bool = field(default=False, metadata=described("Send what comes, until the end."))


@frozen(kw_only=True)
class Watching:
    """Until when events are sent."""

    follow: bool = field(default=True, metadata=described("Send what comes, until the end."))


@frozen(kw_only=True)
class Idempotency:
    """A request that may be sent again."""

    key: str | None = field(
        default=None,
        metadata={
            "name": "Idempotency-Key",
            **described(
                "The same key with the same request gives the same execution, however often it is sent.",
                pattern=f"^.{{1,{KEY_LENGTH_MAX}}}$",
            ),
        },
    )


@frozen(kw_only=True)
class Resuming:
    """Where a stream goes on."""

    after: str | None = field(
        default=None,
        metadata={
            "name": "Last-Event-ID",
            **described("The id of the last event that was read.", pattern=POSITION_PATTERN),
        },
    )


def read_query(request: web.Request, cls: type[T]) -> T:
    """The query as a `cls`; raises `InvalidRequest` for what is not allowed."""
    values = {}
    for parameter in attrs.fields(cls):  # type: ignore[arg-type]
        text = request.query.get(parameter.name)
        if text is not None:
            values[parameter.name] = _parse(text, parameter)
    return cls(**values)


def read_key(request: web.Request) -> str | None:
    """The `Idempotency-Key`; raises `InvalidRequest` for one that is too long, or empty."""
    key = request.headers.get("Idempotency-Key")
    if key is not None and not 0 < len(key) <= KEY_LENGTH_MAX:
        raise InvalidRequest(f"Idempotency-Key has 1 to {KEY_LENGTH_MAX} characters", field="Idempotency-Key")
    return key


def _parse(text: str, parameter: "attrs.Attribute[Any]") -> Any:
    name, told = parameter.name, parameter.metadata
    kind: Any = next((arg for arg in get_args(parameter.type) if arg is not type(None)), parameter.type)
    if kind is str:
        return text
    if kind is bool:
        if text not in _FLAGS:
            raise InvalidRequest(f"{name} is {text[:60]!r}; allowed is 0 and 1", field=name)
        return _FLAGS[text]
    if issubclass(kind, Enum):
        allowed = [member.value for member in kind]
        if text not in allowed:
            raise InvalidRequest(f"{name} is {text[:60]!r}; allowed is {', '.join(allowed)}", field=name)
        return kind(text)
    value = _number(text, kind)
    if value is None or not told["least"] <= value <= told["most"]:
        raise InvalidRequest(
            f"{name} is {text[:60]!r}; allowed is {told['least']:g} to {told['most']:g}", field=name
        )
    return value


def _number(text: str, kind: type[int] | type[float]) -> float | None:
    if len(text) > 60 or _NUMBER.fullmatch(text) is None:
        return None
    try:
        return kind(text)
    except ValueError:  # not a whole number, where one is wanted
        return None
