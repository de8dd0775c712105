"""Build the OpenAPI 3.1 document from the decorators of the handlers, the types that they name, and the settings."""

import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Any

import attrs
from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from apispec.ext.marshmallow.openapi import OpenAPIConverter
from attrs import frozen
from marshmallow import RAISE

from pyexec import __version__
from pyexec.domain.result import Result
from pyexec.domain.spec import EvalRequest, Limits
from pyexec.limits import limits_of, session_limits_of
from pyexec.settings import Settings
from pyexec.web.middleware import SAFE_METHODS, is_public
from pyexec.web.openapi.examples import MEDIA_TYPE_EXAMPLES, TYPE_EXAMPLES
from pyexec.web.openapi.schema_builder import ERROR_HEADERS, error_responses, schema_of
from pyexec.web.schemas import Accepted, Message

JSON = "application/json"
Route = tuple[str, str, Any]
_BODY_MEDIA_TYPES = {"json": [JSON], "form": ["multipart/form-data"]}
_WITH_EXECUTION_ID = (Result, Accepted)
_OF_EXECUTIONS = ("get_execution", "delete_execution", "get_logs", "get_events", "get_files")
"""Operations that take the execution id which a submission returns."""
_OF_SESSIONS = ("get_session", "session_eval", "session_eval_async", "list_session_files", "close_session")
"""Operations that take the id of the session which was opened."""
_SCHEMAS = {"text/event-stream": schema_of(Message), "text/plain": {"type": "string"}}
_BINARY = {"type": "string", "format": "binary"}
_CONSTRAINTS: dict[type, dict[str, Any]] = {
    EvalRequest: {
        "oneOf": [
            {"required": ["code"], "properties": {"code": {"type": "string"}, "files": {"maxItems": 0}}},
            {
                "required": ["files"],
                "properties": {"files": {"type": "array", "minItems": 1}, "code": {"type": "null"}},
            },
        ],
        "not": {
            "required": ["docker_image", "python_version"],
            "properties": {"docker_image": {"type": "string"}, "python_version": {"type": "string"}},
        },
    }
}
"""Fields that exclude each other, by type. null is the same as leaving the field out."""
_DESCRIPTION = """Runs untrusted Python programs, each alone in an isolated sandbox.

If a program fails or exceeds a limit, the response is still 200, and its result says what happened. Error statuses mean
that the request itself cannot be served. Every path also works with a trailing slash, and HEAD wherever GET does. For a
method that a path does not support, the response is 405 with an `Allow` header."""


@frozen(kw_only=True)
class ServerInfo:
    """Properties of a server that its document shows: version, default image, limits, and what it allows.

    `session_times` has the default and the maximum of each time of a session."""

    version: str
    default_image: str
    default_limits: Limits
    max_limits: Limits
    session_times: Mapping[str, tuple[float, float]]
    requires_token: bool
    allows_setup: bool


def server_info(settings: Settings, *, requires_token: bool = False) -> ServerInfo:
    """Derive the properties from the settings."""
    times = session_limits_of(settings)
    return ServerInfo(
        version=__version__,
        default_image=settings.default_image,
        default_limits=limits_of(settings, "default"),
        max_limits=limits_of(settings, "max"),
        session_times={
            "idle_timeout_seconds": (times.idle_default, times.idle_max),
            "lifetime_seconds": (times.lifetime_max, times.lifetime_max),
        },
        requires_token=requires_token,
        allows_setup=settings.setup_network != "none",
    )


def openapi_document(routes: Iterable[Route], server: ServerInfo) -> dict[str, Any]:
    """Build the whole document."""
    plugin = _Plugin()
    spec = APISpec(
        "python-executor",
        server.version,
        "3.1.0",
        plugins=[plugin],
        info={"description": _DESCRIPTION, "license": {"name": "MIT", "identifier": "MIT"}},
        servers=[{"url": ".", "description": "this server"}],
        tags=[{"name": name} for name in ("run", "executions", "sessions", "server")],
    )
    if server.requires_token:
        spec.components.security_scheme("token", {"type": "http", "scheme": "bearer"})
    for method, path, handler in routes:
        operation = _operation(handler.__apispec__, handler, plugin.converter)
        if server.requires_token and not is_public(path):
            operation["security"] = [{"token": []}]
            operation["responses"] |= {"401": _response(error_responses(401)["401"], [JSON], {}, "401")}
        if not server.requires_token and method not in SAFE_METHODS:
            operation["responses"] |= {"403": _response(error_responses(403)["403"], [JSON], {}, "403")}
        spec.path(re.sub(r":[^}]*}", "}", path), operations={method.lower(): operation})
    document = spec.to_dict()
    _add_server_defaults(document["components"]["schemas"], server)
    return document


class _Converter(OpenAPIConverter):
    """Adds examples, and for request bodies `additionalProperties: false`."""

    def schema2jsonschema(self, schema: Any) -> dict[str, Any]:
        document: dict[str, Any] = super().schema2jsonschema(schema)  # type: ignore[no-untyped-call]
        if schema.Meta.unknown == RAISE:
            document["additionalProperties"] = False
        document |= _CONSTRAINTS.get(schema.Meta.attrs_class, {})
        if schema.Meta.attrs_class in TYPE_EXAMPLES:
            document["examples"] = TYPE_EXAMPLES[schema.Meta.attrs_class]
        return document


class _Plugin(MarshmallowPlugin):
    Converter = _Converter


def _operation(docs: Mapping[str, Any], handler: Any, converter: Any) -> dict[str, Any]:
    """Build an operation from what aiohttp-apispec's decorators have stored on a handler."""
    operation: dict[str, Any] = {
        "operationId": handler.__name__,
        "tags": docs["tags"],
        "summary": docs["summary"],
        "description": inspect.getdoc(handler),
        "parameters": [],
    }
    for entry in docs["schemas"]:
        schema, location = entry["schema"], entry["location"]
        if location in _BODY_MEDIA_TYPES:
            content = {media_type: _request_body(schema) for media_type in _BODY_MEDIA_TYPES[location]}
            operation.setdefault("requestBody", {"required": True, "content": {}})["content"] |= content
        else:
            operation["parameters"] += converter.schema2parameters(schema, location=location)
    if "requestBody" not in operation and "consumes" in docs:
        content = {media_type: {"schema": _BINARY} for media_type in docs["consumes"]}
        operation["requestBody"] = {"required": True, "content": content}
    responses = docs["responses"]
    if not any(status.startswith("2") for status in responses):
        responses = {"200": {"description": docs["summary"]}, **responses}
    headers = docs.get("headers", {})
    operation["responses"] = {
        status: _response(
            response,
            _media_types(status, docs["produces"]),
            {**ERROR_HEADERS.get(int(status), {}), **headers.get(status, {})},
            status,
        )
        for status, response in sorted(responses.items())
    }
    for status, response in responses.items():
        if _schema_class(response) in _WITH_EXECUTION_ID and "requestBody" in operation:
            operation["responses"][status]["links"] = _links(_OF_EXECUTIONS, "execution_id")
        if status == "201":
            operation["responses"][status]["links"] = _links(_OF_SESSIONS, "id")
    return operation


def _media_types(status: str, produces: list[str]) -> list[str]:
    if status in ("204", "304"):
        return []
    return produces if status.startswith("2") else [JSON]


def _request_body(schema: Any) -> dict[str, Any]:
    """Describe a body. If it is multipart, each part has a media type: JSON, unless the part names another."""
    parts = attrs.fields(schema.Meta.attrs_class)
    if not any("media_type" in part.metadata for part in parts):
        return {"schema": schema}
    encoding = {part.name: {"contentType": part.metadata.get("media_type", JSON)} for part in parts}
    return {"schema": schema, "encoding": encoding}


def _response(
    docs: Mapping[str, Any], media_types: Iterable[str], headers: Mapping[str, str], status: str
) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for media_type in media_types:
        if media_type == JSON:
            content[media_type] = {"schema": docs["schema"]}
        elif media_type in MEDIA_TYPE_EXAMPLES:
            content[media_type] = {"schema": _SCHEMAS[media_type], "example": MEDIA_TYPE_EXAMPLES[media_type]}
        else:
            content[media_type] = {"schema": _BINARY}
    response: dict[str, Any] = {"description": docs["description"] or status}
    if content:
        response["content"] = content
    if headers:
        response["headers"] = {
            name: {"description": description, "schema": {"type": "string"}}
            for name, description in headers.items()
        }
    return response


def _schema_class(response: Mapping[str, Any]) -> type | None:
    return response["schema"].Meta.attrs_class if "schema" in response else None


def _links(operations: Iterable[str], id_field: str) -> dict[str, Any]:
    parameters = {"id": f"$response.body#/{id_field}"}
    return {name: {"operationId": name, "parameters": parameters} for name in operations}


def _add_server_defaults(schemas: dict[str, Any], server: ServerInfo) -> None:
    """Add the defaults and maxima that this server's settings define."""
    limits = schemas["RequestedLimits"]["properties"]
    for limit in attrs.fields(Limits):
        default = getattr(server.default_limits, limit.name)
        maximum = getattr(server.max_limits, limit.name)
        if isinstance(default, bool) or limit.name not in limits:
            continue
        limits[limit.name] |= {"default": default} if default is not None else {}
        limits[limit.name] |= {"maximum": maximum} if maximum is not None else {}
        _lower_examples(limits, schemas, limit.name, maximum)
    for name in ("idle_timeout_seconds", "lifetime_seconds"):
        default, maximum = server.session_times[name]
        seconds = schemas["SessionRequest"]["properties"][name]
        seconds |= {"default": default, "maximum": maximum}
        seconds["examples"] = [min(example, maximum) for example in seconds["examples"]]
    for name in ("Metadata", "EvalRequest", "SessionRequest"):
        fields = schemas[name]["properties"]
        fields["docker_image"]["description"] += f" Default: {server.default_image}."
        fields["docker_image"]["examples"] = [server.default_image]  # always allowed
        if not server.allows_setup:
            for setup_field in ("requirements_txt", "pre_commands"):
                del fields[setup_field]["examples"]


def _lower_examples(
    limits: dict[str, Any], schemas: dict[str, Any], name: str, maximum: float | None
) -> None:
    """Lower the examples of one limit to the server's maximum, so that they are valid requests."""
    if maximum is None:
        return
    limits[name]["examples"] = [min(example, maximum) for example in limits[name]["examples"]]
    for schema in (schemas["Metadata"], schemas["EvalRequest"], schemas["SessionRequest"]):
        schema["examples"] = [
            {**example, "config": {**example["config"], name: min(example["config"][name], maximum)}}
            if name in example.get("config", {})
            else example
            for example in schema["examples"]
        ]
