"""Between attrs classes and JSON: stored events with versioned tags, requests with errors a caller can read,
results without the fields that do not apply."""

import base64
import difflib
import json
import math
from datetime import UTC, datetime
from typing import Any, TypeVar

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn

from pyexec.domain import events
from pyexec.domain.events import Event
from pyexec.errors import CorruptLog, InvalidRequest

T = TypeVar("T")

TAGS: dict[str, type[Event]] = {
    "submitted.v1": events.Submitted,
    "claimed.v1": events.Claimed,
    "released.v1": events.Released,
    "preparing.v1": events.Preparing,
    "running.v1": events.Running,
    "adopted.v1": events.Adopted,
    "kill_requested.v1": events.KillRequested,
    "finished.v1": events.Finished,
    "failed.v1": events.Failed,
    "killed.v1": events.Killed,
}
"""The names under which events are stored. A tag keeps its meaning; a changed event gets a new one."""

_TAG_OF = {cls: tag for tag, cls in TAGS.items()}


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC with microseconds, as every moment is written."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} names no time zone")
    return moment


def _new_converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)
    converter.register_unstructure_hook(datetime, timestamp)
    converter.register_structure_hook(datetime, lambda text, _: _moment(text))
    converter.register_unstructure_hook(bytes, lambda data: base64.b64encode(data).decode())
    converter.register_structure_hook(bytes, lambda text, _: base64.b64decode(text, validate=True))
    converter.register_unstructure_hook_factory(
        attrs.has, lambda cls: make_dict_unstructure_fn(cls, converter, _cattrs_omit_if_default=True)
    )
    return converter


_stored = _new_converter()
_shown = _new_converter()


def _unstructure_shown(cls: type) -> Any:
    to_dict: Any = make_dict_unstructure_fn(cls, _shown)
    return lambda value: {key: item for key, item in to_dict(value).items() if item is not None}


_shown.register_unstructure_hook_factory(attrs.has, _unstructure_shown)


def encode_event(event: Event) -> bytes:
    """An event for storage: a JSON object with its tag under `type`."""
    return json.dumps({"type": _TAG_OF[type(event)], **_stored.unstructure(event)}).encode()


def decode_event(stored: bytes) -> Event:
    """The event that was stored; raises `CorruptLog` when this version cannot read it."""
    try:
        document = json.loads(stored)
        tag = document.pop("type")
        cls = TAGS.get(tag)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise CorruptLog(f"a stored event is not one of ours: {stored[:80]!r}") from error
    if cls is None:
        raise CorruptLog(f"a stored event has the unknown tag {tag!r}; known are {', '.join(TAGS)}")
    try:
        return _stored.structure(document, cls)
    except (cattrs.BaseValidationError, ValueError, TypeError) as error:
        raise CorruptLog(f"a stored {tag} event cannot be read: {error}") from error


def event_name(event: Event) -> str:
    """The event's name without its version, as event streams show it."""
    return _TAG_OF[type(event)].partition(".")[0]


def to_json(value: object) -> Any:
    """Any of our attrs values as callers see it: None left out, moments in UTC."""
    return _shown.unstructure(value)


def read_report(data: bytes, cls: type[T]) -> T:
    """What a probe has reported, a JSON object, as a `cls`; raises `ValueError` when it is none."""
    try:
        return _stored.structure(json.loads(data), cls)
    except (cattrs.BaseValidationError, TypeError, RecursionError) as error:
        raise ValueError(f"it is no {cls.__name__}: {data[:80]!r}") from error


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def parse_json(text: str | bytes, *, what: str) -> Any:
    """The JSON document in `text`; raises `InvalidRequest` saying where `what` is malformed."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{what} is not UTF-8 text", field=what) from error
    except RecursionError as error:
        raise InvalidRequest(f"{what} is nested too deeply", field=what) from error
    except ValueError as error:
        raise InvalidRequest(f"{what} is not JSON: {error}", field=what) from error


def parse_request(document: Any, cls: type[T], *, what: str) -> T:
    """`document` as a `cls`, strictly; raises `InvalidRequest` naming the field that does not fit."""
    if not isinstance(document, dict):
        raise InvalidRequest(f"{what} must be a JSON object, not {_kind(document)}", field=what)
    try:
        return _requests.structure(document, cls)
    except cattrs.BaseValidationError as group:
        raise _first_fault(group, "") from group


class _Mismatch(ValueError):
    """A JSON value is not of the kind that its field takes."""


class _InItem(Exception):
    """An item of a list does not fit."""

    def __init__(self, index: int, error: Exception) -> None:
        super().__init__(index, error)
        self.index = index
        self.error = error


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return kinds.get(type(value), "a number")


def _strict(accepted: tuple[type, ...], wanted: str) -> Any:
    def hook(value: object, _: object) -> object:
        if isinstance(value, bool) is not (bool in accepted) or not isinstance(value, accepted):
            raise _Mismatch(f"must be {wanted}, not {_kind(value)}")
        if isinstance(value, float) and not math.isfinite(value):
            raise _Mismatch(f"must be {wanted}, not {value}")
        if isinstance(value, str):
            _check_encodable(value)
        return value

    return hook


_strictly_whole = _strict((int,), "a whole number")


def _whole(value: object, kind: object) -> object:
    """JSON knows one kind of number only: 64.0 is a whole one."""
    is_whole = isinstance(value, float) and value.is_integer()
    return _strictly_whole(int(value) if is_whole else value, kind)  # type: ignore[call-overload]


def _check_encodable(text: str) -> None:
    """JSON can spell half a surrogate pair, which no file name or stream can hold."""
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise _Mismatch("must be text; it holds an unpaired surrogate")


def _new_request_converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)
    converter.register_structure_hook(str, _strict((str,), "a string"))
    converter.register_structure_hook(bool, _strict((bool,), "true or false"))
    converter.register_structure_hook(int, _whole)
    converter.register_structure_hook(float, _strict((int, float), "a number"))

    def structure_attrs(cls: type) -> Any:
        from_dict: Any = make_dict_structure_fn(cls, converter, _cattrs_forbid_extra_keys=True)

        def hook(value: object, _: object) -> object:
            if not isinstance(value, dict):
                raise _Mismatch(f"must be an object, not {_kind(value)}")
            return from_dict(value, cls)

        return hook

    def structure_tuple(cls: Any) -> Any:
        of = cls.__args__[0]

        def hook(value: object, _: object) -> object:
            if not isinstance(value, list):
                raise _Mismatch(f"must be a list, not {_kind(value)}")
            items = []
            for index, item in enumerate(value):
                try:
                    items.append(converter.structure(item, of))
                except (cattrs.BaseValidationError, _Mismatch) as error:
                    raise _InItem(index, error) from error
            return tuple(items)

        return hook

    converter.register_structure_hook_factory(attrs.has, structure_attrs)
    converter.register_structure_hook_factory(
        lambda cls: getattr(cls, "__origin__", None) is tuple, structure_tuple
    )
    return converter


_requests = _new_request_converter()


def _hint(unknown: str, kind: type) -> str:
    """What was perhaps meant by a field that `kind` has not."""
    fields = attrs.fields(kind)
    for field in fields:
        if attrs.has(field.type) and unknown in attrs.fields_dict(field.type):
            return f"it belongs in {field.name!r}"
    known = [field.name for field in fields]
    near = difflib.get_close_matches(unknown, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"


def _first_fault(error: BaseException, path: str) -> InvalidRequest:
    """The first leaf of a validation error as a sentence with the dotted path of its field."""
    if isinstance(error, cattrs.ForbiddenExtraKeysError):
        unknown = sorted(error.extra_fields)[0]
        name = f"{path}.{unknown}".lstrip(".")
        hint = _hint(unknown, error.cl)
        return InvalidRequest(f"unknown field {name!r}; {hint}", field=name, code="unknown_field")
    if isinstance(error, cattrs.BaseValidationError):
        inner = error.exceptions[0]
        return _first_fault(inner, f"{path}.{_noted_field(inner)}".strip("."))
    if isinstance(error, _InItem):
        return _first_fault(error.error, f"{path}[{error.index}]")
    if isinstance(error, KeyError):
        return InvalidRequest(f"{path} is missing", field=path)
    return InvalidRequest(f"{path} {error}", field=path)


def _noted_field(error: BaseException) -> str:
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, cattrs.AttributeValidationNote):
            return note.name
    return ""
