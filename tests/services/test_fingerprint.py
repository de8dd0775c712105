"""Test that a fingerprint depends on every byte of a request, and that no step of it encodes a long text at once."""

import json

import pytest

from pyexec.codec import to_json_without_defaults
from pyexec.domain.spec import Metadata
from pyexec.services.idempotency import PIECE_CHARACTERS, fingerprint, json_pieces

LONG = '\U0001f600"\n\x7f' * PIECE_CHARACTERS
DOCUMENTS = [
    {},
    {"stdin": LONG, "env_vars": ["A=1", LONG], "config": {"memory_mb": 64, "cpus": 0.5}},
    {"b": [], "a": [True, None, "", {"z": 1, "y": []}]},
]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_pieces_are_the_document(document: object) -> None:
    pieces = list(json_pieces(document))
    assert "".join(pieces) == json.dumps(document, sort_keys=True)
    assert all(len(piece) <= 12 * PIECE_CHARACTERS for piece in pieces)


def test_a_fingerprint_depends_on_every_part() -> None:
    parts = ("/api/v1/exec", {"stdin": LONG}, "0" * 64)
    changed = [
        ("/api/v1/eval", *parts[1:]),
        (parts[0], {"stdin": LONG + "x"}, parts[2]),
        (*parts[:2], "1" * 64),
    ]
    assert len({fingerprint(*each) for each in [parts, parts, *changed]}) == 4


def test_fields_with_their_default_are_left_out() -> None:
    """A replica of an earlier version, which does not know a field, gets the same fingerprint."""
    metadata = Metadata(stdin="x", script_args=("a", "b"))
    assert to_json_without_defaults(metadata) == {"stdin": "x", "script_args": ["a", "b"]}
    assert to_json_without_defaults(Metadata()) == {}
