"""Parse JSON of callers strictly, with readable errors."""

import json
import sys
from collections import Counter
from typing import Any

from pyexec.errors import InvalidRequest, quote, shorten

STRINGS_MAX = 100_000
"""Maximum number of strings in a JSON document of a caller, names included. All lists of a request need less."""
VALUES_MAX = 100_000
"""Maximum number of list items and fields in such a document."""


def _reject_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object; raise `InvalidRequest` for a repeated name.

    A proxy that checks requests might use the other value."""
    document = dict(pairs)
    if len(document) < len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise InvalidRequest(
            f"field {quote(twice)} occurs more than once; send it once", field=shorten(twice)
        )
    return document


def parse_json(text: str | bytes, *, what: str) -> Any:
    """Parse a JSON document, which messages call `what`. Raise `InvalidRequest` if it is malformed, repeats a name
    within an object, or has more strings or values than any request needs."""
    _check_counts(text, what)
    try:
        return json.loads(text, object_pairs_hook=_object_of, parse_constant=_reject_constant)
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{what} is not UTF-8 text", field=what) from error
    except RecursionError as error:
        raise InvalidRequest(f"{what} is nested too deeply", field=what) from error
    except ValueError as error:
        if str(error).startswith("Exceeds the limit"):  # of the interpreter
            digits = sys.get_int_max_str_digits()
            raise InvalidRequest(f"{what} has a number of more than {digits} digits", field=what) from error
        raise InvalidRequest(f"{what} is not JSON: {error}", field=what) from error


def _check_counts(text: str | bytes, what: str) -> None:
    """Raise `InvalidRequest` for a document with too many strings or values, without parsing it.

    Parsing blocks all other threads, and takes much memory: five million empty lists take two seconds and 400 MB, the
    same bytes in one string a hundredth of that. Counting is quick. Before each list item and field is a comma or a
    bracket; those in strings do not count."""
    document = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if len(document) <= VALUES_MAX:
        return
    document = document.replace(rb"\\", b"").replace(rb"\"", b"")
    if document.count(b'"') > 2 * STRINGS_MAX:
        raise InvalidRequest(f"{what} has more than {STRINGS_MAX} strings", field=what)
    outside = b"".join(document.split(b'"')[::2])
    if sum(outside.count(sign) for sign in (b",", b"[", b"{")) > VALUES_MAX:
        raise InvalidRequest(f"{what} has more than {VALUES_MAX} list items and fields", field=what)
