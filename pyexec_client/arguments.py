"""Check the types of arguments. Each error names the argument, and says what it must be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

_WORK = "/work/"
"""The working directory of a program. Paths of files are relative to it."""


def wrong_type(name: str, expected: str, value: object) -> TypeError:
    """Return the error for an argument of the wrong type."""
    return TypeError(f"{name} must be {expected}, not {type(value).__name__}")


def text(name: str, value: object, expected: str = "a str") -> str:
    """Return the value, which must be a `str`."""
    if not isinstance(value, str):
        raise wrong_type(name, expected, value)
    return value


def chunk_of_bytes(chunk: bytes) -> bytes:
    """Return the chunk of a body, which must be bytes. Raise ValueError and not TypeError: an open file has the right
    type, even if its mode is wrong."""
    if not isinstance(chunk, bytes | bytearray | memoryview):
        kind = type(chunk).__name__
        raise ValueError(f"the data is {kind}, not bytes; open files in binary mode")  # noqa: TRY004
    return chunk


def texts(name: str, value: object, expected: str = "a list of str") -> list[str]:
    """Return the value, which must be a sequence of `str`, as a list. A `str` itself is not one."""
    if not isinstance(value, Sequence) or isinstance(value, str | bytes | bytearray):
        raise wrong_type(name, expected, value)
    return [text(f"{name}[{index}]", item) for index, item in enumerate(value)]


def text_mapping(name: str, value: object, expected: str) -> dict[str, str]:
    """Return the value, which must be a mapping of `str` to `str`, as a dict."""
    if not isinstance(value, Mapping):
        raise wrong_type(name, expected, value)
    return {text(f"a name in {name}", key): text(f"{name}[{key!r}]", item) for key, item in value.items()}


def flag(name: str, value: object) -> bool:
    """Return the value, which must be a `bool`."""
    if not isinstance(value, bool):
        raise wrong_type(name, "True or False", value)
    return value


def whole_number(name: str, value: object) -> int:
    """Return the value, which must be a whole number, as an `int`."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise wrong_type(name, "an int", value)
    return int(value)


def list_limit(value: object) -> int | None:
    """Return the value, which must be a number of entries, at least 1, or None for all."""
    if value is None:
        return None
    limit = whole_number("limit", value)
    if limit < 1:
        raise ValueError(f"limit must be at least 1, not {limit}; None means all")
    return limit


def number(name: str, value: object) -> float:
    """Return the value, which must be a finite number, as an `int` or a `float`."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise wrong_type(name, "an int or a float", value)
    if isinstance(value, Integral):
        return int(value)
    if not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, not {value}")
    return float(value)


def execution_id(value: Any) -> str:
    """Return the value, which must be the ID of an execution."""
    text("execution_id", value, "the ID of an execution (a str such as Result.execution_id)")
    return _id("execution", value, "exe_0123abcd")


def session_id(value: Any) -> str:
    """Return the value, which must be the ID of a session."""
    text("session_id", value, "the ID of a session (a str such as SessionInfo.id)")
    return _id("session", value, "ses_0123abcd")


def file_path(value: Any) -> str:
    """Return the value, which must be the path of a file, as a path relative to /work."""
    path = text("path", value)
    if path.startswith("/") and not path.startswith(_WORK):
        raise ValueError(f"invalid file path '{value}': it must be below /work")
    path = path.removeprefix(_WORK)
    names = path.split("/")
    # The HTTP library would resolve the others, and send the request to another endpoint.
    if not any(names) or "." in names or ".." in names:
        raise ValueError(f"invalid file path '{value}': it must have a name, and no '.' or '..'")
    return path


def _id(kind: str, value: str, example: str) -> str:
    if not value.isascii() or not value.replace("_", "").isalnum():
        raise ValueError(f"invalid {kind} ID '{value}': it must look like {example}")
    return value
