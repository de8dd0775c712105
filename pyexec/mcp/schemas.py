"""JSON Schemas of the tools, derived from the schemas of the server's OpenAPI document."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from typing import Any

import anyio.to_thread
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from pyexec.mcp.argument_terms import OTHER_NAMES

Schema = dict[str, Any]

ITEMS_MAX = 10_000
"""Maximum length of a list of arguments. It is that of the HTTP API."""
_INLINE_ITEMS_MAX = 100
_REFERENCE = "#/components/schemas/"
_NAME_CHARACTERS = 100
_MESSAGE_CHARACTERS = 300
_TYPE_NAMES = {
    "string": "a string",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
}


class ApiSchemas:
    """The component schemas of an OpenAPI document."""

    def __init__(self, openapi: Schema) -> None:
        self._components: dict[str, Schema] = openapi["components"]["schemas"]

    def field(self, component: str, name: str, **changes: Any) -> Schema:
        """Return the schema of one field as that of an argument. It does not offer null, which means left out."""
        schema: Schema = {**self._components[component]["properties"][name], **changes}
        if isinstance(kinds := schema.get("type"), list):
            schema["type"] = next(kind for kind in kinds if kind != "null")
        return schema

    def has_component(self, component: str) -> bool:
        """Return True if the API has this component."""
        return component in self._components

    def has(self, component: str, name: str) -> bool:
        """Return True if the component has this field."""
        return name in self._components[component]["properties"]

    def output(self, component: str) -> Schema:
        """Return the schema of an answer."""
        schema = {key: value for key, value in self._components[component].items() if key != "examples"}
        return self._with_definitions(schema)

    def arguments(self, required: Iterable[str], **properties: Schema) -> Schema:
        """Return the schema of a tool's arguments."""
        return self._with_definitions(
            {
                "type": "object",
                "properties": properties,
                "required": list(required),
                "additionalProperties": False,
            }
        )

    def _with_definitions(self, schema: Schema) -> Schema:
        """Move the components that the schema uses to `$defs`, because a tool's schema stands alone."""
        found: dict[str, Schema] = {}
        _collect(schema, self._components, found)
        text = json.dumps({**schema, **({"$defs": found} if found else {})})
        moved: Schema = json.loads(text.replace(f'"{_REFERENCE}', '"#/$defs/'))
        return moved


def _collect(value: Any, components: dict[str, Schema], found: dict[str, Schema]) -> None:
    """Add each component that `value` refers to, directly or indirectly, to `found`."""
    if isinstance(value, dict):
        name = str(value.get("$ref", "")).removeprefix(_REFERENCE)
        if name in components and name not in found:
            found[name] = {key: part for key, part in components[name].items() if key != "examples"}
            _collect(found[name], components, found)
        for part in value.values():
            _collect(part, components, found)
    elif isinstance(value, list):
        for part in value:
            _collect(part, components, found)


def without_nulls(arguments: dict[str, Any], schema: Schema) -> dict[str, Any]:
    """Return the arguments without null values. As in the HTTP API, null means left out.

    Unknown arguments stay, so that they are reported."""
    known = schema["properties"]
    return {name: value for name, value in arguments.items() if value is not None or name not in known}


async def check_arguments(arguments: dict[str, Any], schema: Schema) -> str | None:
    """Return what is wrong with the arguments, in a sentence that a model can act on; None if they are valid.

    A list item takes up to 70 µs, so a thread checks long lists."""
    lengths = {name: len(value) for name, value in arguments.items() if isinstance(value, list)}
    for name, length in lengths.items():
        if length > ITEMS_MAX and name in schema["properties"]:
            return f"{name} must have at most {ITEMS_MAX} items, not {length}"
    if sum(lengths.values()) <= _INLINE_ITEMS_MAX:
        return _first_mistake(arguments, schema)
    return await anyio.to_thread.run_sync(_first_mistake, arguments, schema)


def with_whole_numbers(arguments: dict[str, Any], schema: Schema) -> dict[str, Any]:
    """Return checked arguments with 1.0 as 1 where the schema has an integer: JSON has only one type of number."""
    kinds = {name: part.get("type") for name, part in schema["properties"].items()}
    return {name: int(value) if kinds[name] == "integer" else value for name, value in arguments.items()}


def _first_mistake(arguments: dict[str, Any], schema: Schema) -> str | None:
    """Describe the first error. An unknown argument comes before a missing one, because it may be its misspelling."""
    errors = Draft202012Validator(schema).iter_errors(arguments)
    first = next(errors, None)
    if first is not None and first.validator == "required":
        first = next((error for error in errors if _may_be_misspelling(error, first)), first)
    return None if first is None else _sentence(first)


def _may_be_misspelling(error: ValidationError, missing: ValidationError) -> bool:
    is_unknown: bool = error.validator == "additionalProperties"
    return is_unknown and list(error.path) == list(missing.path)


def _sentence(error: ValidationError) -> str:
    """Describe an error without the whole value, which may have megabytes."""
    where = error.json_path.removeprefix("$").removeprefix(".")
    match error.validator:
        case "type":
            wanted = error.validator_value
            examples = error.schema.get("examples")
            example = f"; for example {json.dumps(examples[0])}" if examples else ""
            return f"{where or 'arguments'} must be {_TYPE_NAMES.get(str(wanted), wanted)}{example}"
        case "required":
            missing = next(name for name in error.validator_value if name not in error.instance)
            return f"{f'{where}.' if where else ''}{missing} is missing"
        case "additionalProperties":
            known = error.schema["properties"]
            unknown = min(name for name in error.instance if name not in known)
            near = difflib.get_close_matches(unknown[:_NAME_CHARACTERS], known, n=1)
            name = OTHER_NAMES.get(unknown) or next(iter(near), "")
            hint = f"did you mean {name!r}?" if name in known else f"known are {', '.join(known)}"
            return f"unknown argument {unknown[:_NAME_CHARACTERS]!r}; {hint}"
    text = error.message
    return f"{where}: {text if len(text) <= _MESSAGE_CHARACTERS else text[:_MESSAGE_CHARACTERS] + '…'}"
