"""Convert between attrs classes and JSON: stored events with versioned tags, and responses without the fields that do
not apply."""

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

import attrs
import cattrs
from cattrs.gen import make_dict_unstructure_fn

from pyexec.domain import events, session_events
from pyexec.domain.events import Event, StoredEvent
from pyexec.domain.session_events import SessionEvent
from pyexec.errors import CorruptLog

T = TypeVar("T")
E = TypeVar("E", bound=StoredEvent)


def _first_versions(*classes: type[E]) -> dict[str, type[E]]:
    return {f"{cls.name}.v1": cls for cls in classes}


TAGS: dict[str, type[Event]] = _first_versions(
    events.Submitted,
    events.Claimed,
    events.Released,
    events.Preparing,
    events.Running,
    events.Adopted,
    events.KillRequested,
    events.Finished,
    events.Failed,
    events.Killed,
)
"""The tags under which events are stored. A tag never changes its meaning; a changed event gets a new tag."""

SESSION_TAGS: dict[str, type[SessionEvent]] = _first_versions(
    session_events.SessionOpened,
    session_events.SessionPlaced,
    session_events.SessionAdopted,
    session_events.InterpreterRestarted,
    session_events.SessionClosed,
)
"""The tags of the events of interpreter sessions."""

_TAG_OF: dict[type[StoredEvent], str] = {cls: tag for tag, cls in (*TAGS.items(), *SESSION_TAGS.items())}


def timestamp(moment: datetime) -> str:
    """Format a time as RFC 3339 in UTC with microseconds, the only format that is written."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _parse_timestamp(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return moment


def _new_converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)
    converter.register_unstructure_hook(datetime, timestamp)
    converter.register_structure_hook(datetime, lambda text, _: _parse_timestamp(text))
    converter.register_unstructure_hook(bytes, lambda data: base64.b64encode(data).decode())
    converter.register_structure_hook(bytes, lambda text, _: base64.b64decode(text, validate=True))
    converter.register_unstructure_hook_factory(
        attrs.has, lambda cls: make_dict_unstructure_fn(cls, converter, _cattrs_omit_if_default=True)
    )
    return converter


_storage = _new_converter()
_responses = _new_converter()


def _unstructure_without_none(cls: type) -> Any:
    to_dict: Any = make_dict_unstructure_fn(cls, _responses)
    return lambda value: {key: item for key, item in to_dict(value).items() if item is not None}


_responses.register_unstructure_hook_factory(attrs.has, _unstructure_without_none)


def encode_event(event: StoredEvent) -> bytes:
    """Encode an event for storage, as a JSON object with its tag under `type`."""
    return json.dumps({"type": _TAG_OF[type(event)], **_storage.unstructure(event)}).encode()


def decode_event(stored: bytes) -> Event:
    """Decode a stored event of an execution; raise `CorruptLog` if this version cannot read it."""
    return _decode(stored, TAGS)


def decode_session_event(stored: bytes) -> SessionEvent:
    """Decode a stored event of a session; raise `CorruptLog` if this version cannot read it."""
    return _decode(stored, SESSION_TAGS)


def _decode(stored: bytes, tags: Mapping[str, type[E]]) -> E:
    try:
        document = json.loads(stored)
        tag = document.pop("type")
        cls = tags.get(tag)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise CorruptLog(f"a stored event is malformed: {stored[:80]!r}") from error
    if cls is None:
        raise CorruptLog(f"a stored event has the unknown tag {tag!r}; known tags are {', '.join(tags)}")
    try:
        return _storage.structure(document, cls)
    except (cattrs.BaseValidationError, ValueError, TypeError) as error:
        raise CorruptLog(f"a stored {tag} event cannot be read: {error}") from error


def to_json(value: object) -> Any:
    """Convert an attrs value for a response, without the fields that are None."""
    return _responses.unstructure(value)


def to_json_without_defaults(value: object) -> Any:
    """Convert an attrs value, without the fields that have their default: another version may not know them."""
    return _storage.unstructure(value)


def read_report(data: bytes, cls: type[T]) -> T:
    """Convert the JSON object that a probe reported to a `cls`; raise `ValueError` if it is malformed."""
    try:
        return _storage.structure(json.loads(data), cls)
    except (cattrs.BaseValidationError, TypeError, RecursionError) as error:
        raise ValueError(f"not a valid {cls.__name__} report: {data[:80]!r}") from error
