"""Test that JSON in slices is the JSON that Python reads and writes in one step."""

import json
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyexec.domain import json_slices
from pyexec.domain.json_slices import (
    DEPTH_MAX,
    SCAN_CHARACTERS,
    SLICE_CHARACTERS,
    encoded_json,
    encoded_text,
    members,
)
from tests.events import json_values

signs = st.text(st.sampled_from('[]{}",: 1a\\ue-.0n'), max_size=40)
sizes = st.integers(1, 20)


def sliced(text: str, size: int) -> str:
    with patch.object(json_slices, "SLICE_CHARACTERS", size):
        return b"".join(encoded_json(text.encode())).decode()


def read(text: str) -> Any:
    def reject(name: str) -> None:
        raise ValueError(name)

    return json.loads(text, parse_constant=reject)


@given(json_values, sizes, st.sampled_from([None, 1]))
def test_a_value_is_encoded_as_in_one_step(value: object, size: int, indent: int | None) -> None:
    try:
        expected = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError:
        with pytest.raises(ValueError):  # noqa: PT011  of json, or of json_slices
            sliced(json.dumps(value), size)
        return
    expected = expected.encode("utf-8", "replace").decode()
    assert sliced(json.dumps(value, indent=indent), size) == expected


@given(json_values, st.data(), sizes)
def test_malformed_json_is_rejected(value: object, data: st.DataObject, size: int) -> None:
    """Of two equal names in an object, the last one counts."""
    text = json.dumps(value)
    at = data.draw(st.integers(0, len(text)))
    text = text[:at] + data.draw(signs) + text[at + data.draw(st.integers(0, 3)) :]
    same_as_in_one_step(text, size)


@given(signs, sizes)
def test_any_text_is_read_as_in_one_step(text: str, size: int) -> None:
    same_as_in_one_step(text, size)


@pytest.mark.parametrize("size", range(1, 20))
@pytest.mark.parametrize(
    "text",
    [
        "[1,]",
        "[,1]",
        "[1,,1]",
        "[[],,[]]",
        "[1, 2], 3",
        '{"a": 1,}',
        '{"a", "b"}',
        '{"a": 1, 2}',
        '[1, "a": 2]',
        '{"a": [1, 2}, "b": 3]',
        '[1, "a]',
        "[1, 2",
        "1, 2]",
        "[1, 2]]",
        '{"a": [1, 2], "b": 3, "a": [4, 5, 6]}',
        '{"a": 1, "b": 2, "a": {"c": 3, "d": 4}}',
        '["[", "]", ",", "\\\\", "\\"", 1, "\\ud83d\\ude00"]',
        '[{"a": [1, {"b": []}, 2], "c": {}}, [[], [[]]], {"d": {"e": 1, "f": 2}}]',
    ],
)
def test_slices_end_anywhere(text: str, size: int) -> None:
    same_as_in_one_step(text, size)


def same_as_in_one_step(text: str, size: int) -> None:
    try:
        expected = json.dumps(read(text), ensure_ascii=False, allow_nan=False)
    except ValueError:
        with pytest.raises(ValueError):  # noqa: PT011  of json, or of json_slices
            sliced(text, size)
        return
    assert names_sorted(sliced(text, size)) == names_sorted(expected.encode("utf-8", "replace").decode())


def names_sorted(text: str) -> str:
    return json.dumps(json.loads(text), sort_keys=True)


def test_whitespace_in_one_place_is_bounded() -> None:
    assert sliced("[1" + " " * SCAN_CHARACTERS + ", 2]", SLICE_CHARACTERS) == "[1, 2]"
    with pytest.raises(ValueError, match="whitespace"):
        sliced("[1" + " " * 2 * SCAN_CHARACTERS + ", 2]", SLICE_CHARACTERS)


def test_depth_is_counted_over_all_slices() -> None:
    def nested(depth: int) -> str:
        return "[1, " * (depth - 1) + "[1" + "]" * depth

    with pytest.raises(ValueError, match="levels deep"):
        sliced(nested(DEPTH_MAX + 1), 10)
    assert sliced(nested(DEPTH_MAX), 10) == nested(DEPTH_MAX)


@given(st.text(st.characters(exclude_categories=["Cs"])), sizes)
def test_text_is_encoded_as_in_one_step(text: str, size: int) -> None:
    data = text.encode()
    for ensure_ascii in (True, False):
        pieces = (data[at : at + size] for at in range(0, len(data), size))
        found = b"".join(encoded_text(pieces, ensure_ascii=ensure_ascii)).decode()
        assert found == json.dumps(text, ensure_ascii=ensure_ascii)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), json_values), sizes)
def test_the_members_of_an_object_are_found(value: dict[str, object], size: int) -> None:
    with patch.object(json_slices, "SCAN_CHARACTERS", size):
        found = list(members(json.dumps(value, ensure_ascii=False)))
    assert found == [(name, json.dumps(each, ensure_ascii=False)) for name, each in value.items()]
