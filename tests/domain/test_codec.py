"""Test the codec: events survive a round trip, requests are parsed strictly, and errors name the field."""

import gc
import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyexec.codec import (
    ITEMS_MAX,
    SESSION_TAGS,
    TAGS,
    decode_event,
    decode_session_event,
    encode_event,
    parse_request,
    timestamp,
    to_json,
)
from pyexec.domain.events import Event, Finished, Submitted
from pyexec.domain.execution import fold
from pyexec.domain.output_log import OutputLog, Stream
from pyexec.domain.result import result_of
from pyexec.domain.session_events import SessionEvent
from pyexec.domain.spec import EvalRequest, Metadata, RequestedLimits, SourceFile
from pyexec.errors import QUOTE_LENGTH_MAX, CorruptLog, InvalidRequest
from pyexec.json_parser import parse_json
from pyexec.web.session_schemas import CellRequest
from tests.events import any_event, any_session_event, moments, submitted, texts

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(any_session_event)
def test_an_event_of_a_session_comes_back_as_it_was(event: SessionEvent) -> None:
    stored = encode_event(event)
    assert decode_session_event(stored) == event
    assert SESSION_TAGS[json.loads(stored)["type"]] is type(event)
    with pytest.raises(CorruptLog):
        decode_event(stored)


@given(any_event)
def test_an_event_of_an_execution_is_no_event_of_a_session(event: Event) -> None:
    with pytest.raises(CorruptLog):
        decode_session_event(encode_event(event))


@given(any_event)
def test_an_event_comes_back_as_it_was(event: Event) -> None:
    stored = encode_event(event)
    assert decode_event(stored) == event
    tag = json.loads(stored)["type"]
    assert TAGS[tag] is type(event)
    assert tag == f"{event.name}.v1"


def test_every_kind_of_event_has_a_tag() -> None:
    gc.collect()  # attrs makes each class twice, because of its slots
    assert set(TAGS.values()) == set(Event.__subclasses__())
    assert set(SESSION_TAGS.values()) == set(SessionEvent.__subclasses__())


def test_tags_never_change() -> None:
    assert list(TAGS) == [
        "submitted.v1",
        "claimed.v1",
        "released.v1",
        "preparing.v1",
        "running.v1",
        "adopted.v1",
        "kill_requested.v1",
        "finished.v1",
        "failed.v1",
        "killed.v1",
    ]
    assert list(SESSION_TAGS) == [
        "session_opened.v1",
        "session_placed.v1",
        "session_adopted.v1",
        "interpreter_restarted.v1",
        "session_closed.v1",
    ]


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"\xff",
        b"[]",
        b"null",
        b'"x"',
        b"{}",
        b'{"type": "exploded.v1"}',
        b'{"type": "killed.v2"}',
        b'{"type": []}',
        b'{"type": null}',
        b'{"type": "killed.v1"}',
        b'{"type": "killed.v1", "at": 5, "nonce": "n"}',
        b'{"type": "killed.v1", "at": "yesterday", "nonce": "n"}',
        b'{"type": "killed.v1", "at": "2026-01-01T00:00:00", "nonce": "n"}',
        b'{"type": "killed.v1", "at": "2026-01-01T00:00:00Z", "nonce": "n", "extra": 1}',
        b'{"type": "killed.v1", "at": "2026-01-01T00:00:00Z", "nonce": "n", "output": {"inline": "!"}}',
        b'{"type": "failed.v1", "at": "2026-01-01T00:00:00Z", "nonce": "n", "error": "", "error_type": "?"}',
        b"[" * 100_000,
    ],
)
def test_an_invalid_event_is_corrupt(stored: bytes) -> None:
    with pytest.raises(CorruptLog):
        decode_event(stored)


def test_an_unknown_tag_is_named() -> None:
    with pytest.raises(CorruptLog, match=r"'exploded\.v1'.*submitted\.v1"):
        decode_event(b'{"type": "exploded.v1"}')


@given(any_event, st.data())
def test_a_damaged_event_is_corrupt_or_another_event(event: Event, data: st.DataObject) -> None:
    document = json.loads(encode_event(event))
    field = data.draw(st.sampled_from(sorted(document)))
    document[field] = data.draw(json_values)
    with suppress(CorruptLog):
        assert isinstance(decode_event(json.dumps(document).encode()), Event)


@given(moments, moments)
def test_timestamps_sort_as_moments_do(first: datetime, second: datetime) -> None:
    assert (timestamp(first) < timestamp(second)) is (first < second)
    assert datetime.fromisoformat(timestamp(first)) == first


def test_a_timestamp_is_utc_with_microseconds() -> None:
    moment = datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    assert timestamp(moment) == "2026-01-01T00:00:00.000000Z"


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
        ({"config": {"memory": 1}}, "config.memory", "did you mean 'memory_mb'?"),
        ({"config": {"memory_mb": "1"}}, "config.memory_mb", "config.memory_mb must be a whole number"),
        ({"config": {"memory_mb": 1.5}}, "config.memory_mb", "must be a whole number, not a number"),
        ({"config": {"memory_mb": True}}, "config.memory_mb", "not a boolean"),
        ({"config": {"network_disabled": 1}}, "config.network_disabled", "must be true or false"),
        ({"config": {"timeout_seconds": "5"}}, "config.timeout_seconds", "must be a number, not a string"),
        ({"config": []}, "config", "config must be an object, not a list"),
        ({"env_vars": [None]}, "env_vars[0]", "env_vars[0] must be a string, not null"),
        ({"zzz": None}, "zzz", "unknown field 'zzz'"),
        ({"env_vars": "A=1"}, "env_vars", "env_vars must be a list, not a string"),
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


def test_fields_that_do_not_apply_are_omitted() -> None:
    output_log = OutputLog()
    output_log.append(Stream.STDOUT, b"hi\n")
    assert to_json(result_of(fold("exe_1", [submitted(datetime(2026, 1, 1, tzinfo=UTC))]), output_log)) == {
        "execution_id": "exe_1",
        "status": "pending",
        "stdout": "hi\n",
        "stderr": "",
        "created_at": "2026-01-01T00:00:00.000000Z",
        "tenant": "default",
        "truncated": {"stdout": False, "stderr": False},
    }


def test_old_events_without_files_are_read() -> None:
    stored = (
        b'{"type": "finished.v1", "at": "2026-01-01T00:00:00Z", "nonce": "n", "exit_code": 0, "output": {}}'
    )
    event = decode_event(stored)
    assert isinstance(event, Finished)
    assert (event.files, event.result_truncated) == (None, False)


def test_a_whole_number_may_be_written_with_a_point() -> None:
    parsed = parse_request(
        parse_json('{"config": {"memory_mb": 64.0}}', what="metadata"), Metadata, what="metadata"
    )
    assert (parsed.config.memory_mb, type(parsed.config.memory_mb)) == (64, int)


def test_old_events_without_a_tenant_belong_to_default() -> None:
    stored = encode_event(submitted())
    assert b"tenant" not in stored  # so that earlier versions can read it
    event = decode_event(stored)
    assert isinstance(event, Submitted)
    assert event.spec.tenant == "default"
    of_tenant = attrs.evolve(event, spec=attrs.evolve(event.spec, tenant="acme"))
    assert decode_event(encode_event(of_tenant)) == of_tenant
