"""Build marshmallow schemas from attrs classes and their documentation, for the OpenAPI document."""

import types
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from functools import cache
from types import MappingProxyType
from typing import Any, Union, get_args, get_origin

import attrs
from marshmallow import INCLUDE, RAISE, Schema, fields
from marshmallow.validate import OneOf

from pyexec.web.openapi.descriptions import TYPES
from pyexec.web.openapi.field_docs import FieldDoc
from pyexec.web.schemas import Problem


class SchemaRole(Enum):
    """Use of a class in the API. It decides which fields are required and whether others are allowed."""

    RESPONSE = "response"
    """Clients must accept unknown fields. Fields that do not apply are left out."""
    REQUEST_BODY = "request_body"
    """Unknown fields are rejected. In an optional field, null is the same as leaving the field out."""
    PARAMETERS = "parameters"
    """Text in the path, the query or the headers."""


class _Bytes(fields.Raw):
    """Binary content."""


class _BooleanText(fields.String):
    """A boolean parameter."""

    def __init__(self, **options: Any) -> None:
        options["load_default"] = "01"[options["load_default"]]
        super().__init__(validate=OneOf(("0", "1", "false", "true")), **options)


_FIELD_CLASSES: dict[type, type[fields.Field[Any]]] = {
    str: fields.String,
    int: fields.Integer,
    float: fields.Float,
    bool: fields.Boolean,
    bytes: _Bytes,
    datetime: fields.DateTime,
}


ERRORS = {
    400: "The request is malformed or not allowed; `field` names what is wrong.",
    401: "The API token is missing or invalid.",
    403: "A browser sent the request for a page of another site, and no API tokens are configured.",
    404: "The execution is unknown, or was deleted after its retention.",
    409: "The Idempotency-Key was already used with a different request.",
    413: "The request, or the unpacked archive, is too large.",
    415: "The archive is not an uncompressed tar, or the body is compressed.",
    429: "No slot, or no place for the setup that the request needs, is free, and the queue is full.",
    503: "The event log or the container engine is unavailable, or the server is starting or stopping.",
}
"""Description of each error status."""
ERROR_HEADERS = {
    401: {"WWW-Authenticate": "Always Bearer."},
    429: {"Retry-After": "Seconds to wait before the next attempt."},
}


def schema_of(cls: type, role: SchemaRole = SchemaRole.RESPONSE) -> type[Schema]:
    """Return the marshmallow schema of an attrs class. It is always the same one."""
    return _schema_of(cls, role)


@cache
def _schema_of(cls: type, role: SchemaRole) -> type[Schema]:
    members: dict[str, Any] = {a.name: _field_of(cls, a, role) for a in attrs.fields(cls)}
    meta = {
        "attrs_class": cls,
        "description": TYPES[cls].description,
        "unknown": RAISE if role is SchemaRole.REQUEST_BODY else INCLUDE,
        "register": False,
    }
    return type(cls.__name__, (Schema,), {**members, "Meta": type("Meta", (), meta)})


def error_responses(*statuses: int, other: Mapping[int, str] = MappingProxyType({})) -> dict[str, Any]:
    """Return the `responses` of aiohttp-apispec's `docs` for these error statuses.

    `other` adds statuses with a description of their own."""
    descriptions = {**{status: ERRORS[status] for status in statuses}, **other}
    return {
        str(status): {"schema": schema_of(Problem), "description": description}
        for status, description in sorted(descriptions.items())
    }


def _field_of(cls: type, attribute: "attrs.Attribute[Any]", role: SchemaRole) -> fields.Field[Any]:
    options: dict[str, Any] = {"metadata": _keywords_of(cls, attribute)}
    if "name" in attribute.metadata:
        options["data_key"] = attribute.metadata["name"]
    if role is SchemaRole.RESPONSE:
        is_nullable = attribute.metadata.get("nullable", False)
        options["required"] = is_nullable or not _is_optional(attribute.type)
        options["allow_none"] = is_nullable
    else:
        options["required"] = attribute.default is attrs.NOTHING
        options["allow_none"] = role is SchemaRole.REQUEST_BODY and not options["required"]
        if isinstance(attribute.default, str | int | float | tuple):
            options["load_default"] = attribute.default
    return _field(attribute.type, role, options)


def _keywords_of(cls: type, attribute: "attrs.Attribute[Any]") -> dict[str, Any]:
    """Return the JSON Schema keywords that the type itself does not imply."""
    doc = _field_doc(cls, attribute.name)
    keywords: dict[str, Any] = {"description": doc.description}
    keywords |= {
        name: attribute.metadata[name] for name in ("minimum", "maximum") if name in attribute.metadata
    }
    if doc.pattern is not None:
        keywords["pattern"] = doc.pattern
    if doc.example is not None:
        keywords["examples"] = [doc.example]
    return keywords


def _field_doc(cls: type, name: str) -> FieldDoc:
    """Return the documentation of a field, also of an inherited one; raise `LookupError` if there is none."""
    for base in cls.__mro__:
        if base in TYPES and name in TYPES[base].fields:
            return TYPES[base].fields[name]
    raise LookupError(f"{cls.__name__}.{name} is not documented")


def _is_optional(kind: Any) -> bool:
    return type(None) in get_args(kind)


def _field(kind: Any, role: SchemaRole, options: dict[str, Any]) -> fields.Field[Any]:
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _field(next(arg for arg in get_args(kind) if arg is not type(None)), role, options)
    if origin is tuple:
        pattern = options["metadata"].pop("pattern", None)
        item_options = {"metadata": {} if pattern is None else {"pattern": pattern}}
        return fields.List(_field(get_args(kind)[0], role, item_options), **options)
    if origin in (dict, Mapping):
        return fields.Dict(values=_field(get_args(kind)[1], role, {"metadata": {}}), **options)
    if kind is Any:
        return fields.Raw(**options)
    if attrs.has(kind):
        return fields.Nested(schema_of(kind, role), **options)
    if issubclass(kind, Enum):
        return fields.Enum(kind, by_value=fields.String, **options)
    if kind is bool and role is SchemaRole.PARAMETERS:
        return _BooleanText(**options)
    if kind is bytes:
        options["metadata"] = {"type": "string", "format": "binary", **options["metadata"]}
    return _FIELD_CLASSES[kind](**options)
