"""The API's schemas for its documentation, made from the attrs classes: there is no second copy to keep."""

import types
from datetime import datetime
from enum import Enum
from functools import cache
from typing import Any, Union, get_args, get_origin

import attrs
from attrs import frozen
from marshmallow import Schema, fields

_SIMPLE: dict[type, type[fields.Field[Any]]] = {
    str: fields.String,
    int: fields.Integer,
    float: fields.Float,
    bool: fields.Boolean,
    datetime: fields.DateTime,
}


@frozen(kw_only=True)
class Problem:
    """Every error."""

    error: str
    code: str
    field: str | None = None


@cache
def schema_of(cls: type) -> type[Schema]:
    """The marshmallow schema of an attrs class, with the `doc` and `example` of its fields."""
    made = {attribute.name: _field_of(attribute) for attribute in attrs.fields(cls)}
    return Schema.from_dict(made, name=f"{cls.__name__}Schema")


def _field_of(attribute: "attrs.Attribute[Any]") -> fields.Field[Any]:
    described = {
        name: value
        for name, value in {
            "description": attribute.metadata.get("doc"),
            "example": attribute.metadata.get("example"),
        }.items()
        if value is not None
    }
    options: dict[str, Any] = {"metadata": described, "required": attribute.default is attrs.NOTHING}
    return _field(attribute.type, options)


def _field(kind: Any, options: dict[str, Any]) -> fields.Field[Any]:
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        inner = next(arg for arg in get_args(kind) if arg is not type(None))
        return _field(inner, {**options, "required": False})
    if origin is tuple:
        return fields.List(_field(get_args(kind)[0], {}), **options)
    if attrs.has(kind):
        return fields.Nested(schema_of(kind), **options)
    if issubclass(kind, Enum):
        return fields.Enum(kind, by_value=True, **options)
    return _SIMPLE[kind](**options)
