"""Check and encode JSON in slices that take a few milliseconds, so that a large value does not occupy the event loop.

`json.loads` and `json.dumps` handle a value in one step, during which no other task and no other thread runs."""

import codecs
import json
import re
import secrets
from collections.abc import Iterable, Iterator
from typing import NoReturn

VALUES_MAX = 500_000
"""Maximum number of values, as `count_signs` counts them: clients need seconds to read more."""
DEPTH_MAX = 100
"""Maximum nesting depth of lists and objects. Libraries that encode or parse a result have limits, too; the lowest
known one is 200 (pydantic, in MCP clients)."""
LONG_NUMBERS_MAX = 5_000
"""Maximum number of numbers in a value that take long to convert: above 1e100, below 1e-100, or with more than 100
digits. An integer counts once for each 100 digits."""
SLICE_CHARACTERS = 4 * 1024
"""A slice ends at the first comma after this length. The worst ones, such as 1,300 empty lists, take 2 ms. A string is
never cut: one of 8 MiB takes 0.1 s (2026-11-28)."""
TEXT_SLICE_CHARACTERS = 16 * 1024
"""Length of the slices of a text."""
SCAN_CHARACTERS = 64 * 1024
"""Maximum length of one search for the next bracket: longer ones take milliseconds."""
_EXPONENT_MAX = 100
_DIGITS_MAX = 100
_BRACKET = re.compile(r'["\[\]{}]')
_BRACKET_OR_COMMA = re.compile(r'["\[\]{},]')
_CLOSING = {"[": "]", "{": "}"}
_WHITESPACE = " \t\r\n"
_string_decoder = json.JSONDecoder()
_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


def encoded_json(value: bytes) -> Iterator[bytes]:
    """Yield a JSON value in the form in which Python encodes it, in slices.

    Raise `ValueError` if it is malformed, not finite, nested too deeply, or has too many values or too much whitespace
    in one place. A name that occurs twice in one object may remain there twice."""
    values = 0
    long_numbers = _LongNumbers()
    decoder = json.JSONDecoder(
        object_pairs_hook=_object_of,
        parse_constant=_reject_constant,
        parse_int=long_numbers.parse_int,
        parse_float=long_numbers.parse_float,
    )
    # The name of each value whose beginning is in an earlier slice. The value cannot contain it.
    name = secrets.token_hex(8)
    opening = {"[": "[", "{": f'{{"{name}": '}
    for before, text, after in _slices(value.decode("utf-8", "surrogatepass")):
        values += count_signs(text) + 1
        if values > VALUES_MAX:
            raise ValueError(f"the value has more than {VALUES_MAX} values")
        head = "".join(opening[bracket] for bracket in before[:-1]) + before[-1:]
        tail = "".join(_CLOSING[bracket] for bracket in reversed(after))
        encoded = _encoder.encode(decoder.decode(f"{head}{text}{tail}"))
        more = ", " if after else ""
        # JSON escapes can name half of a surrogate pair, which UTF-8 cannot.
        yield f"{encoded[len(head) : len(encoded) - len(tail)]}{more}".encode("utf-8", "replace")


def count_signs(text: str) -> int:
    """Return the number of commas and opening brackets, even in strings. A text has at most one value more."""
    return sum(text.count(sign) for sign in ",[{")


def _slices(text: str) -> Iterator[tuple[str, str, str]]:
    """Cut a JSON text at commas between values. Yield the brackets that are open before each slice, the slice without
    the comma, and the brackets that are open after it."""
    before, start, at = "", 0, 0
    brackets: list[str] = []
    while at < len(text):
        slice_end = start + SLICE_CHARACTERS
        is_full = at >= slice_end
        pattern, end = (_BRACKET_OR_COMMA, at + SCAN_CHARACTERS) if is_full else (_BRACKET, slice_end)
        found = pattern.search(text, at, end)
        if found is None:
            if is_full and end < len(text):
                raise ValueError(f"more than {SCAN_CHARACTERS} characters are whitespace, or one number")
            at = end
            continue
        sign, at = found[0], found.end()
        if sign == '"':
            at = _string_end(text, at)
        elif sign in _CLOSING:
            brackets.append(sign)
            if len(brackets) > DEPTH_MAX:
                raise ValueError(f"the value is nested more than {DEPTH_MAX} levels deep")
        elif sign != ",":
            if not brackets or _CLOSING[brackets.pop()] != sign:
                raise ValueError("the brackets do not match")
        elif brackets:
            after = "".join(brackets)
            yield before, _stripped(text[start : at - 1], before, after), after
            before, start = after, at
    yield before, _stripped(text[start:], before, ""), ""


def _string_end(text: str, at: int) -> int:
    """Return the end of the string whose first character is at `at`; raise `ValueError` if it has none."""
    quote = text.find('"', at)
    if quote >= 0 and text[quote - 1] != "\\":
        return quote + 1
    _, end = _string_decoder.raw_decode(text, at - 1)
    return int(end)


def _stripped(text: str, before: str, after: str) -> str:
    """Return a slice without outer whitespace. Raise `ValueError` if a value is missing next to a cut."""
    stripped = text.strip(_WHITESPACE)
    if (before and stripped[:1] in "]}") or (after and stripped[-1:] in "[{"):
        raise ValueError("a value is missing")
    return stripped


def _object_of(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return the object. Of two equal names, the second one stays, in its place: its value may end in a later slice."""
    document = dict(pairs)
    if len(document) < len(pairs):
        document.clear()
        for name, value in pairs:
            document.pop(name, None)
            document[name] = value
    return document


class _LongNumbers:
    """Parses the numbers of a JSON value; raises `ValueError` if converting them back to text would take too long.

    A float with a large exponent takes ten times as long as another one, and the time of an integer grows with the
    square of its length."""

    def __init__(self) -> None:
        self._left = LONG_NUMBERS_MAX

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
            raise ValueError(f"the value has more than {LONG_NUMBERS_MAX} long numbers")


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def encoded_text(pieces: Iterable[bytes], *, ensure_ascii: bool) -> Iterator[bytes]:
    """Yield UTF-8 text as a JSON string, in slices. Invalid bytes are replaced.

    An empty piece becomes an empty slice, so that the caller can let other tasks run."""
    encode = json.JSONEncoder(ensure_ascii=ensure_ascii).encode
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    quote = b'"'
    for piece in pieces:
        text = decoder.decode(piece)
        for at in range(0, len(text), TEXT_SLICE_CHARACTERS):
            yield quote + encode(text[at : at + TEXT_SLICE_CHARACTERS])[1:-1].encode()
            quote = b""
        if not piece:
            yield b""
    yield quote + encode(decoder.decode(b"", final=True))[1:].encode()


def members(text: str) -> Iterator[tuple[str, str]]:
    """Yield the names of an object, and the JSON of their values. The text must be encoded as Python encodes it.

    Call this in a thread if the text may be long: other threads can run meanwhile."""
    at = 1
    while text[at] != "}":
        begin = _string_end(text, at + 1)
        end = _value_end(text, begin + 2)
        yield json.loads(text[at:begin]), text[begin + 2 : end]
        at = end + 2 if text[end] == "," else end


def _value_end(text: str, at: int) -> int:
    """Return the end of the value that begins at `at`: the comma or bracket after it."""
    depth = 0
    while True:
        pattern = _BRACKET if depth else _BRACKET_OR_COMMA
        found = pattern.search(text, at, at + SCAN_CHARACTERS)
        if found is None:
            at += SCAN_CHARACTERS
            continue
        sign = found[0]
        if not depth and sign in ",]}":
            return found.start()
        at = found.end()
        if sign == '"':
            at = _string_end(text, at)
        else:
            depth += 1 if sign in _CLOSING else -1
