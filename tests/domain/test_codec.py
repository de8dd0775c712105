"""Test the codec of stored events: they survive a round trip, and corrupt ones are recognized."""

import gc
import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyexec.codec import (
    SESSION_TAGS,
    TAGS,
    decode_event,
    decode_session_event,
    encode_event,
    timestamp,
    to_json,
)
from pyexec.domain.events import Event, Finished, Submitted
from pyexec.domain.execution import fold
from pyexec.domain.output_log import OutputLog, Stream
from pyexec.domain.result import result_of
from pyexec.domain.session_events import SessionEvent
from pyexec.errors import CorruptLog
from tests.events import any_event, any_session_event, json_values, moments, submitted


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
    gc.unfreeze()  # see tests/conftest.py
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


def test_old_events_without_a_tenant_belong_to_default() -> None:
    stored = encode_event(submitted())
    assert b"tenant" not in stored  # so that earlier versions can read it
    event = decode_event(stored)
    assert isinstance(event, Submitted)
    assert event.spec.tenant == "default"
    of_tenant = attrs.evolve(event, spec=attrs.evolve(event.spec, tenant="acme"))
    assert decode_event(encode_event(of_tenant)) == of_tenant
