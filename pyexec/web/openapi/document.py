"""The API as an OpenAPI 3.1 document, made of what aiohttp-apispec's decorators noted on the handlers, of the types
that they name, and of this server's limits."""

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
from pyexec.domain.spec import Limits
from pyexec.settings import Settings
from pyexec.web.middleware.csrf import READING
from pyexec.web.middleware.errors import is_open
from pyexec.web.openapi.error_docs import HEADERS, problems
from pyexec.web.openapi.examples import OF_MEDIA, OF_TYPES
from pyexec.web.openapi.schemas import schema_of
from pyexec.web.sse import Message

JSON = "application/json"
Route = tuple[str, str, Any]
_BODIES = {"json": [JSON], "form": ["multipart/form-data"]}
_FOLLOW_UPS = ("get_execution", "delete_execution", "get_logs", "get_events", "get_files")
"""What the id of an execution is good for."""
_SCHEMAS = {"text/event-stream": schema_of(Message), "text/plain": {"type": "string"}}
_ABOUT = """Runs Python that nobody has vetted, each program in a throw-away sandbox.

A program that ends with an error, or breaks a limit, is an answer 200 whose result says so; errors are for requests
that cannot be served. Every path
takes a slash at its end, too; a method that a path does not take is 405, with `Allow`."""


@frozen(kw_only=True)
class Terms:
    """What one server says of itself: its limits, and whether it wants a token."""

    version: str
    image: str
    defaults: Limits
    ceilings: Limits
    secured: bool


def terms_of(settings: Settings) -> Terms:
    """What a server with these settings says."""
    return Terms(
        version=__version__,
        image=settings.default_image,
        defaults=settings.limits("default"),
        ceilings=settings.limits("max"),
        secured=bool(settings.api_tokens),
    )


def openapi_document(routes: Iterable[Route], terms: Terms) -> dict[str, Any]:
    """The whole document."""
    plugin = _Plugin()
    spec = APISpec(
        "python-executor",
        terms.version,
        "3.1.0",
        plugins=[plugin],
        info={"description": _ABOUT, "license": {"name": "MIT", "identifier": "MIT"}},
        servers=[{"url": ".", "description": "this server"}],
        tags=[{"name": "run"}, {"name": "executions"}, {"name": "server"}],
    )
    if terms.secured:
        spec.components.security_scheme("token", {"type": "http", "scheme": "bearer"})
    for method, path, handler in routes:
        operation = _operation(handler.__apispec__, handler, plugin.converter)
        if terms.secured and not is_open(path):
            operation["security"] = [{"token": []}]
            operation["responses"] |= {"401": _response(problems(401)["401"], [JSON], {}, "401")}
        if not terms.secured and method not in READING:
            operation["responses"] |= {"403": _response(problems(403)["403"], [JSON], {}, "403")}
        spec.path(re.sub(r":[^}]*}", "}", path), operations={method.lower(): operation})
    document = spec.to_dict()
    _tell_terms(document["components"]["schemas"], terms)
    return document


class _Converter(OpenAPIConverter):
    """With examples, and with the strictness of requests."""

    def schema2jsonschema(self, schema: Any) -> dict[str, Any]:
        document: dict[str, Any] = super().schema2jsonschema(schema)  # type: ignore[no-untyped-call]
        if schema.Meta.unknown == RAISE:
            document["additionalProperties"] = False
        if schema.Meta.described in OF_TYPES:
            document["examples"] = OF_TYPES[schema.Meta.described]
        return document


class _Plugin(MarshmallowPlugin):
    Converter = _Converter


def _operation(told: Mapping[str, Any], handler: Any, converter: Any) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": handler.__name__,
        "tags": told["tags"],
        "summary": told["summary"],
        "description": inspect.getdoc(handler),
        "parameters": [],
    }
    for used in told["schemas"]:
        schema, location = used["schema"], used["location"]
        if location in _BODIES:
            content = {media: _body(schema) for media in told.get("consumes", _BODIES[location])}
            operation["requestBody"] = {"required": True, "content": content}
        else:
            operation["parameters"] += converter.schema2parameters(schema, location=location)
    responses = told["responses"]
    if not any(status.startswith("2") for status in responses):
        responses = {"200": {"description": told["summary"]}, **responses}
    headers = told.get("headers", {})
    operation["responses"] = {
        status: _response(
            response,
            told["produces"] if status.startswith("2") else [JSON],
            {**HEADERS.get(int(status), {}), **headers.get(status, {})},
            status,
        )
        for status, response in sorted(responses.items())
    }
    if "run" in told["tags"]:
        for status in {"200", "202"} & set(responses):
            operation["responses"][status]["links"] = _links()
    return operation


def _body(schema: Any) -> dict[str, Any]:
    """A request's body. Parts that are objects go as JSON, bytes as what they are."""
    parts = attrs.fields(schema.Meta.described)
    media = {part.name: part.metadata["media"] for part in parts if "media" in part.metadata}
    if not media:
        return {"schema": schema}
    encoding = {part.name: {"contentType": media.get(part.name, JSON)} for part in parts}
    return {"schema": schema, "encoding": encoding}


def _response(told: Mapping[str, Any], kinds: Iterable[str], headers: Mapping[str, str], status: str) -> Any:
    content: dict[str, Any] = {}
    for kind in kinds:
        if kind == JSON:
            content[kind] = {"schema": told["schema"]}
        elif kind in OF_MEDIA:
            content[kind] = {"schema": _SCHEMAS[kind], "example": OF_MEDIA[kind]}
        else:
            content[kind] = {"schema": {"type": "string", "format": "binary"}}
    response: dict[str, Any] = {"description": told["description"] or status, "content": content}
    if headers:
        response["headers"] = {
            name: {"description": meaning, "schema": {"type": "string"}} for name, meaning in headers.items()
        }
    return response


def _links() -> dict[str, Any]:
    parameters = {"id": "$response.body#/execution_id"}
    return {name: {"operationId": name, "parameters": parameters} for name in _FOLLOW_UPS}


def _tell_terms(schemas: dict[str, Any], terms: Terms) -> None:
    """This server's defaults and ceilings, which no type knows."""
    limits = schemas["RequestedLimits"]["properties"]
    for limit in attrs.fields(Limits):
        default, most = getattr(terms.defaults, limit.name), getattr(terms.ceilings, limit.name)
        if isinstance(default, bool) or limit.name not in limits:
            continue
        limits[limit.name] |= {"default": default} if default is not None else {}
        limits[limit.name] |= {"maximum": most} if most is not None else {}
    for name in ("Metadata", "EvalRequest"):
        schemas[name]["properties"]["docker_image"]["description"] += f" Left out: {terms.image}."
