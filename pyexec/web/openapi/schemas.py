"""The API's schemas for its documentation, made from the attrs classes: there is no second copy to keep."""

import types
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from functools import cache
from typing import Any, Union, get_args, get_origin

import attrs
from attrs import frozen
from marshmallow import INCLUDE, RAISE, Schema, fields
from marshmallow.validate import OneOf

from pyexec.domain.field_docs import described
from pyexec.domain.ids import ID_PATTERN


class Use(Enum):
    """What a class describes: each kind of thing has rules of its own."""

    ANSWER = "answer"
    """May get more fields one day; those that do not apply are left out."""
    BODY = "body"
    """No other fields; null stands for what is left out, where there is no default."""
    PARAMETERS = "parameters"
    """Text in the path, the query or the headers."""


class _Bytes(fields.Raw):
    """Bytes as they are."""


class _Flag(fields.String):
    """A yes or no, as text."""

    def __init__(self, **options: Any) -> None:
        options["load_default"] = "01"[options["load_default"]]
        super().__init__(validate=OneOf(("0", "1", "false", "true")), **options)


_SIMPLE: dict[type, type[fields.Field[Any]]] = {
    str: fields.String,
    int: fields.Integer,
    float: fields.Float,
    bool: fields.Boolean,
    bytes: _Bytes,
    datetime: fields.DateTime,
}
_KEYWORDS = {"doc": "description", "least": "minimum", "most": "maximum", "pattern": "pattern"}
"""What is told of a field, and the word for it in JSON Schema."""


@frozen(kw_only=True)
class Problem:
    """Every error."""

    error: str = attrs.field(
        metadata=described("A sentence for a person.", "config.memory_mb must be at least 16, not 1")
    )
    code: str = attrs.field(metadata=described("Its kind, for a program.", "invalid_request"))
    field: str | None = attrs.field(
        default=None, metadata=described("Where in the request, if there is a place.", "config.memory_mb")
    )
    execution_id: str | None = attrs.field(
        default=None,
        metadata=described("What was accepted all the same, and goes on.", pattern=ID_PATTERN),
    )


@cache
def schema_of(cls: type, use: Use = Use.ANSWER) -> type[Schema]:
    """The marshmallow schema of an attrs class, with what is told of its fields."""
    made: dict[str, Any] = {a.name: _field_of(a, use) for a in attrs.fields(cls)}
    unknown = RAISE if use is Use.BODY else INCLUDE
    meta = {"described": cls, "description": cls.__doc__, "unknown": unknown, "register": False}
    return type(cls.__name__, (Schema,), {**made, "Meta": type("Meta", (), meta)})


def _field_of(attribute: "attrs.Attribute[Any]", use: Use) -> fields.Field[Any]:
    told = attribute.metadata
    described = {word: told[name] for name, word in _KEYWORDS.items() if name in told}
    if "example" in told:
        described["examples"] = [told["example"]]
    options: dict[str, Any] = {"metadata": described}
    if "name" in told:
        options["data_key"] = told["name"]
    if use is Use.ANSWER:
        options["required"] = told.get("nullable", False) or not _is_optional(attribute.type)
        options["allow_none"] = told.get("nullable", False)
    else:
        options["required"] = attribute.default is attrs.NOTHING
        options["allow_none"] = use is Use.BODY and _is_optional(attribute.type)
        if isinstance(attribute.default, str | int | float | tuple):
            options["load_default"] = attribute.default
    return _field(attribute.type, use, options)


def _is_optional(kind: Any) -> bool:
    return type(None) in get_args(kind)


def _field(kind: Any, use: Use, options: dict[str, Any]) -> fields.Field[Any]:
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _field(next(arg for arg in get_args(kind) if arg is not type(None)), use, options)
    if origin is tuple:
        of_items = {"pattern": options["metadata"].pop("pattern")} if "pattern" in options["metadata"] else {}
        return fields.List(_field(get_args(kind)[0], use, {"metadata": of_items}), **options)
    if origin in (dict, Mapping):
        return fields.Dict(values=_field(get_args(kind)[1], use, {"metadata": {}}), **options)
    if attrs.has(kind):
        return fields.Nested(schema_of(kind, use), **options)
    if issubclass(kind, Enum):
        return fields.Enum(kind, by_value=fields.String, **options)
    if kind is bool and use is Use.PARAMETERS:
        return _Flag(**options)
    if kind is bytes:
        options["metadata"] = {"type": "string", "format": "binary", **options["metadata"]}
    return _SIMPLE[kind](**options)
