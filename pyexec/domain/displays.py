"""Check the displays of a program, and encode them for the output log: MIME bundles of the Jupyter protocol.

The values of a bundle are JSON for JSON types, text for text types, and base64 for all others."""

import binascii
import json
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import frozen

from pyexec.domain.json_slices import count_signs, encoded_json, encoded_text, members

DISPLAYS_MAX = 1000
"""Maximum number of displays of a run."""
MIME_TYPES_MAX = 50
"""Maximum number of MIME types of a display."""
SLICE_BYTES = 48 * 1024
"""How many bytes are encoded at once. A multiple of 3 and 4, as base64 encodes 3 bytes as 4."""
_NAME = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
_MIME = re.compile(f"{_NAME}/{_NAME}")
"""The names that can be registered (RFC 6838 §4.2), without parameters."""
_WHITESPACE = string.whitespace.encode()
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


def binary_value(mime: str, value: bytes) -> Iterator[bytes]:
    """Return the JSON of bytes in slices: text for a text type, else base64."""
    if is_text_type(mime):
        return text_value(mime, value)
    return _quoted(binascii.b2a_base64(part, newline=False) for part in _parts(value))


def text_value(mime: str, value: bytes) -> Iterator[bytes]:
    """Return the JSON of a text in slices. Raise `ValueError` if that of a binary type is not base64."""
    if is_binary_type(mime):
        return _quoted(_checked_base64(value.translate(None, _WHITESPACE)))
    return encoded_text(_parts(value), ensure_ascii=False)


def _checked_base64(value: bytes) -> Iterator[bytes]:
    if b"=" in value[:-2]:
        raise ValueError("the padding is not at the end")
    for part in _parts(value):
        binascii.a2b_base64(part, strict_mode=True)
        yield part


def _parts(value: bytes) -> Iterator[bytes]:
    return (value[at : at + SLICE_BYTES] for at in range(0, len(value), SLICE_BYTES))


def _quoted(slices: Iterator[bytes]) -> Iterator[bytes]:
    yield b'"'
    yield from slices
    yield b'"'


def json_value(mime: str, value: bytes) -> Iterator[bytes]:
    """Return JSON in slices, as `encoded_json`. Raise `ValueError` if that of a text or binary type is not a string."""
    if must_be_text(mime) and not value.lstrip().startswith(b'"'):
        raise ValueError(f"the value of {mime} is not a string")
    return encoded_json(value)


def encoded_display(data: Mapping[str, Sequence[bytes]], metadata: Sequence[bytes]) -> bytes:
    """Encode a display as one line of JSON, given the JSON of its values in slices."""
    parts, begin = [b'{"data": {'], b""
    for mime, value in data.items():
        parts += [begin, json.dumps(mime).encode(), b": ", *value]
        begin = b", "
    return b"".join([*parts, b'}, "metadata": ', *metadata, b"}"])


def decode_display(line: bytes) -> Display:
    """Decode a display of an output log."""
    document = json.loads(line)
    return Display(document["data"], document["metadata"])


def decode_bounded_display(line: bytes, values_max: int) -> tuple[Display, bool]:
    """Decode a display without its JSON that has more than `values_max` values.

    Return the display, and True if it is complete. Call this in a thread if the display may be large."""
    text = line.decode()
    if count_signs(text) <= values_max:
        return decode_display(line), True
    document = dict(members(text))
    values = dict(members(document["data"]))
    kept = {
        mime: json.loads(value)
        for mime, value in values.items()
        if value.startswith('"') or count_signs(value) <= values_max
    }
    has_metadata = count_signs(document["metadata"]) <= values_max
    metadata = json.loads(document["metadata"]) if has_metadata else {}
    return Display(kept, metadata), has_metadata and len(kept) == len(values)
