"""Check the displays of a program, and encode them for the output log: MIME bundles of the Jupyter protocol.

The values of a bundle are JSON for JSON types, text for text types, and base64 for all others."""

import binascii
import json
import re
from collections.abc import Mapping
from typing import Any

from attrs import frozen

DISPLAYS_MAX = 1000
"""Maximum number of displays of a run."""
MIME_TYPES_MAX = 50
"""Maximum number of MIME types of a display."""
JSON_VALUES_MAX = 500_000
"""Maximum number of commas and brackets in a JSON value. More values would occupy the event loop for too long."""
JSON_DEPTH_MAX = 100
"""Maximum number of lists and objects in each other. Libraries that encode or parse a result have a limit, too; the
lowest that is known is 200 (that of pydantic, in MCP clients)."""
JSON_LONG_NUMBERS_MAX = 5_000
"""Maximum number of numbers in a JSON value that take long to convert: above 1e100, below 1e-100, or with more than 100
digits. An integer counts once for each 100 digits."""
_EXPONENT_MAX = 100
_DIGITS_MAX = 100
_NAME = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
_MIME = re.compile(f"{_NAME}/{_NAME}")
"""The names that can be registered (RFC 6838 §4.2), without parameters."""
_BINARY = re.compile(r"(image|audio|video|font)/(?!svg\+xml$).*|application/(pdf|octet-stream|zip)")


@frozen
class Display:
    """An object that a program showed, as a notebook would show it: in one or more MIME types, with metadata."""

    data: Mapping[str, Any]
    metadata: Mapping[str, Any]


def is_mime_type(name: str) -> bool:
    """Return True for the name of a MIME type."""
    return _MIME.fullmatch(name) is not None


def is_binary_type(mime: str) -> bool:
    """Return True for a type whose values are base64. Names of types are in lower case."""
    return _BINARY.fullmatch(mime) is not None


def is_json_type(mime: str) -> bool:
    """Return True for a type whose values are JSON."""
    return mime == "application/json" or mime.endswith("+json")


def is_text_type(mime: str) -> bool:
    """Return True for a type whose values are text."""
    return mime.startswith("text/") or mime.endswith("+xml")


def must_be_text(mime: str) -> bool:
    """Return True for a type whose values are strings: text or base64."""
    return is_text_type(mime) or is_binary_type(mime)


def binary_value(mime: str, value: bytes) -> str:
    """Return the value of bytes: text for a text type, else base64."""
    if is_text_type(mime):
        return value.decode("utf-8", "replace")
    return binascii.b2a_base64(value, newline=False).decode()


def text_value(mime: str, value: bytes) -> str:
    """Return the value of a text. That of a binary type must be base64; raise `ValueError` if it is not."""
    text = value.decode("utf-8", "replace")
    if not is_binary_type(mime):
        return text
    compact = "".join(text.split())
    binascii.a2b_base64(compact, strict_mode=True)
    return compact


def json_value(value: bytes) -> Any:
    """Parse JSON; raise `ValueError` if it is malformed, not finite, nested too deeply, or has too many values."""
    brackets = value.count(b"[") + value.count(b"{")
    if brackets + value.count(b",") >= JSON_VALUES_MAX:
        raise ValueError(f"the value has more than {JSON_VALUES_MAX} values")
    try:
        long_numbers = _LongNumbers()
        document = json.loads(
            value,
            parse_constant=_reject_constant,
            parse_int=long_numbers.parse_int,
            parse_float=long_numbers.parse_float,
        )
    except RecursionError as error:
        raise ValueError("the value is nested too deeply") from error
    if brackets > JSON_DEPTH_MAX:
        _check_depth(document)
    return document


class _LongNumbers:
    """Parses the numbers of a JSON value; raises `ValueError` if converting them back to text would take too long.

    A float with a large exponent takes ten times as long as another one, and the time of an integer grows with the
    square of its length."""

    def __init__(self) -> None:
        self._left = JSON_LONG_NUMBERS_MAX

    def parse_int(self, text: str) -> int:
        if len(text) > _DIGITS_MAX:
            self._count(len(text) // _DIGITS_MAX)
        return int(text)

    def parse_float(self, text: str) -> float:
        number = float(text)
        if "e" in text or "E" in text or len(text) > _DIGITS_MAX:
            size = abs(number)
            if not 10.0**-_EXPONENT_MAX < size < 10.0**_EXPONENT_MAX and size != 0:
                self._count(1)
        return number

    def _count(self, units: int) -> None:
        self._left -= units
        if self._left < 0:
            raise ValueError(f"the value has more than {JSON_LONG_NUMBERS_MAX} long numbers")


def _check_depth(document: Any) -> None:
    """Raise `ValueError` for a document that is nested too deeply."""
    level = [document]
    for _ in range(JSON_DEPTH_MAX + 1):
        containers = [value for value in level if isinstance(value, dict | list)]
        if not containers:
            return
        level = [
            each for value in containers for each in (value.values() if isinstance(value, dict) else value)
        ]
    raise ValueError(f"the value is nested more than {JSON_DEPTH_MAX} levels deep")


def _reject_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def encode_display(display: Display) -> bytes:
    """Encode a display as one line of JSON; raise `ValueError` for a value that JSON cannot express."""
    try:
        document = {"data": display.data, "metadata": display.metadata}
        # JSON escapes can name half of a surrogate pair, which UTF-8 cannot.
        return json.dumps(document, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
    except RecursionError as error:
        raise ValueError("the value is nested too deeply") from error


def decode_display(line: bytes) -> Display:
    """Decode a display of an output log."""
    document = json.loads(line)
    return Display(document["data"], document["metadata"])
