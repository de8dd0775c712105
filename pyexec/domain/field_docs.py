"""What is told of a field, said once: beside the field itself."""

from typing import Any


def described(
    doc: str,
    example: object = None,
    *,
    least: float | None = None,
    most: float | None = None,
    pattern: str | None = None,
) -> dict[str, Any]:
    """An attrs field's metadata: a description, an example, and what a value must hold. A pattern of a list is one of
    each of its items; it is ECMAScript's as well as Python's, and searched for, not matched whole."""
    told = {"doc": doc, "example": example, "least": least, "most": most, "pattern": pattern}
    return {name: value for name, value in told.items() if value is not None}
