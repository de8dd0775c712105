"""Test that JSON requests are parsed strictly, and that errors name the field."""

from contextlib import suppress

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyexec.domain.spec import EvalRequest, Metadata, RequestedLimits, SourceFile
from pyexec.errors import QUOTE_LENGTH_MAX, InvalidRequest
from pyexec.json_parser import parse_json
from pyexec.web.request_parser import ITEMS_MAX, parse_request
from pyexec.web.session_schemas import CellRequest
from tests.events import json_values, texts


@given(json_values)
def test_any_json_is_read_or_refused_by_field(document: object) -> None:
    for cls in (Metadata, EvalRequest):
        # Any other exception fails the test.
        with suppress(InvalidRequest):
            assert isinstance(parse_request(document, cls, what="metadata"), cls)


request_texts = texts.filter(lambda text: "\0" not in text)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "entrypoint": st.none() | request_texts,
            "stdin": request_texts,
            "env_vars": st.lists(request_texts),
            "config": st.fixed_dictionaries(
                {},
                optional={
                    "timeout_seconds": st.integers()
                    | st.floats(allow_nan=False, allow_infinity=False)
                    | st.none(),
                    "network_disabled": st.booleans(),
                    "memory_mb": st.integers() | st.none(),
                },
            ),
        },
    )
)
def test_a_valid_request_is_parsed_unchanged(document: dict[str, object]) -> None:
    read = parse_request(document, Metadata, what="metadata")
    for name, value in document.items():
        if name == "config":
            for limit, number in document["config"].items():
                assert getattr(read.config, limit) == number
        else:
            assert getattr(read, name) == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize(
    ("document", "field", "said"),
    [
        ([], "metadata", "metadata must be a JSON object, not a list"),
        (None, "metadata", "metadata must be a JSON object, not null"),
        ({"entrypiont": "x"}, "entrypiont", "unknown field 'entrypiont'; did you mean 'entrypoint'?"),
        ({"zzz": 1}, "zzz", "unknown field 'zzz'; known fields are entrypoint, docker_image"),
        (
            {"timeout_seconds": 1},
            "timeout_seconds",
            "unknown field 'timeout_seconds'; it belongs in 'config'",
        ),
        ({"packages": "six"}, "packages", "unknown field 'packages'; did you mean 'requirements_txt'?"),
        ({"environment": {}}, "environment", "unknown field 'environment'; did you mean 'env_vars'?"),
        ({"timeout": 1}, "timeout", "unknown field 'timeout'; did you mean 'config.timeout_seconds'?"),
        ({"config": {"memory": 1}}, "config.memory", "did you mean 'memory_mb'?"),
        ({"config": {"memory_mb": "1"}}, "config.memory_mb", "config.memory_mb must be a whole number"),
        ({"config": {"memory_mb": 1.5}}, "config.memory_mb", "must be a whole number, not 1.5"),
        ({"config": {"memory_mb": True}}, "config.memory_mb", "not a boolean"),
        ({"config": {"network_disabled": 1}}, "config.network_disabled", "must be true or false"),
        ({"config": {"timeout_seconds": "5"}}, "config.timeout_seconds", "must be a number, not a string"),
        ({"config": []}, "config", "config must be an object, not a list"),
        ({"env_vars": [None]}, "env_vars[0]", "env_vars[0] must be a string, not null"),
        ({"zzz": None}, "zzz", "unknown field 'zzz'"),
        ({"env_vars": "A=1"}, "env_vars", "env_vars must be a list, not a string"),
        ({"env_vars": {"A": "1"}}, "env_vars", 'not an object; for example ["NAME=value"]'),
        ({"requirements_txt": ["six"]}, "requirements_txt", r'not a list; for example "numpy\npandas"'),
        ({"session_id": "ses_1"}, "session_id", "with POST /api/v1/sessions/{id}/eval"),
        ({"env_vars": ["A=1", 2]}, "env_vars[1]", "env_vars[1] must be a string, not a number"),
        ({"stdin": "\ud800"}, "stdin", "unpaired surrogate"),
    ],
)
def test_an_invalid_request_names_the_field_and_the_reason(document: object, field: str, said: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_request(document, Metadata, what="metadata")
    assert refused.value.field == field
    assert said in str(refused.value)


@pytest.mark.parametrize("cls", [Metadata, EvalRequest])
def test_null_for_an_optional_field_leaves_it_out(cls: type) -> None:
    nulls = {field.name: None for field in attrs.fields(cls)}
    limits = {field.name: None for field in attrs.fields(RequestedLimits)}
    assert parse_request(nulls, cls, what="body") == cls()
    assert parse_request({"config": limits}, cls, what="body") == cls()


@pytest.mark.parametrize("field", ["env_vars", "script_args", "pre_commands", "output_files"])
def test_the_length_of_a_list_is_bounded(field: str) -> None:
    items = ["x"] * ITEMS_MAX
    assert getattr(parse_request({field: items}, Metadata, what="metadata"), field) == tuple(items)
    with pytest.raises(InvalidRequest, match=f"{field} must have at most {ITEMS_MAX} items") as refused:
        parse_request({field: [*items, None]}, Metadata, what="metadata")
    assert refused.value.field == field


def test_null_for_a_required_field_is_refused() -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_request({"files": [{"name": None, "content": ""}]}, EvalRequest, what="body")
    assert str(refused.value) == "files[0].name must be a string, not null"


@pytest.mark.parametrize("name", ["x" * 2_000_000, "entrypoint" * 20, "'" * 5000])
def test_a_long_unknown_field_is_not_repeated_in_full(name: str) -> None:
    for document, path in (({name: 1}, ""), ({"config": {name: 1}}, "config.")):
        with pytest.raises(InvalidRequest) as refused:
            parse_request(document, Metadata, what="metadata")
        assert refused.value.field == f"{path}{name}"[:QUOTE_LENGTH_MAX] + "…"
        assert len(str(refused.value)) < 500
        assert "known fields are" in str(refused.value)


def test_an_unknown_field_is_named_before_a_missing_one() -> None:
    with pytest.raises(InvalidRequest, match="did you mean 'code'") as caught:
        parse_request({"cod": "1"}, CellRequest, what="body")
    assert (caught.value.code, caught.value.field) == ("unknown_field", "cod")
    with pytest.raises(InvalidRequest, match="code is missing"):
        parse_request({}, CellRequest, what="body")


def test_a_list_of_objects_names_the_item() -> None:
    good = {"name": "a.py", "content": ""}
    assert parse_request({"files": [good]}, EvalRequest, what="body").files == (
        SourceFile(name="a.py", content=""),
    )
    for bad, field in (
        ({"name": "a.py"}, "files[1].content"),
        ({**good, "nam": 1}, "files[1].nam"),
        (3, "files[1]"),
    ):
        with pytest.raises(InvalidRequest) as refused:
            parse_request({"files": [good, bad]}, EvalRequest, what="body")
        assert refused.value.field == field


def test_a_number_with_too_many_digits_is_refused_as_such() -> None:
    with pytest.raises(InvalidRequest, match=r"^metadata has a number of more than 4300 digits$"):
        parse_json('{"config": {"memory_mb": ' + "9" * 5000 + "}}", what="metadata")


@pytest.mark.parametrize("text", ["", "{", "{'a': 1}", "NaN", "[Infinity]", b"\xff", "[" * 100_000])
def test_invalid_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_json(text, what="metadata")
    assert refused.value.field == "metadata"


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "a": 1}',
        '[{"b": {"a": 1, "c": 2, "a": 3}}]',
        b'{"\\u0061": {}, "a": {}}',
        '{"x": {"a": 1, "a": 2}, "x": 1}',
    ],
)
def test_a_repeated_name_is_refused(text: str | bytes) -> None:
    with pytest.raises(InvalidRequest, match="'a' occurs more than once") as refused:
        parse_json(text, what="metadata")
    assert refused.value.field == "a"


def test_a_repeated_name_is_quoted_in_part() -> None:
    name = "n" * 1000
    with pytest.raises(InvalidRequest) as refused:
        parse_json(f'{{"{name}": 1, "{name}": 2}}', what="metadata")
    assert len(str(refused.value)) < 2 * QUOTE_LENGTH_MAX


def test_a_whole_number_may_be_written_with_a_point() -> None:
    parsed = parse_request(
        parse_json('{"config": {"memory_mb": 64.0}}', what="metadata"), Metadata, what="metadata"
    )
    assert (parsed.config.memory_mb, type(parsed.config.memory_mb)) == (64, int)
