"""Documentation of the fields of a type, for the OpenAPI document."""

from typing import Any

from attrs import frozen

from pyexec.domain.ids import ID_PATTERN, SESSION_ID_PATTERN

EXAMPLE_ID = "exe_0190a2b4c6d87e1f9a0b1c2d3e4f5061"
EXAMPLE_SESSION_ID = "ses_0190a2b4c6d87e1f9a0b1c2d3e4f5061"


@frozen
class FieldDoc:
    """Documentation of a field.

    A pattern must be valid in ECMAScript and in Python. The pattern of a list applies to each of its items."""

    description: str
    example: Any = None
    pattern: str | None = None


@frozen
class TypeDoc:
    """Documentation of a type and of its own fields; inherited fields are documented at the base class."""

    description: str
    fields: dict[str, FieldDoc]


def type_doc(description: str = "", **fields: FieldDoc) -> TypeDoc:
    """Return the documentation of a type."""
    return TypeDoc(description, fields)


EXECUTION_ID = FieldDoc("Id of the execution.", EXAMPLE_ID, ID_PATTERN)
SESSION_ID = FieldDoc("Id of the interpreter session.", EXAMPLE_SESSION_ID, SESSION_ID_PATTERN)
