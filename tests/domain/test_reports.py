"""Test that nothing a program reports can break the server: every report is bounded and checked."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyexec.codec import to_json
from pyexec.domain.displays import Display, decode_bounded_display, decode_display, is_mime_type
from pyexec.domain.json_slices import DEPTH_MAX
from pyexec.errors import SandboxBroken
from pyexec.guest.reports import channel
from pyexec.guest.reports.channel import (
    BINARY,
    CAUGHT,
    DISPLAY,
    EXCEPTION,
    FRAME,
    JSON,
    METADATA,
    TEXT,
    field,
)
from pyexec.guest.wire import REPORT_BYTES_EXTRA
from pyexec.sandbox.reports import ReportReader

LIMIT = 100_000


def record(kind: bytes, payload: bytes) -> bytes:
    return kind + len(payload).to_bytes(4, "big") + payload


def shown(*fields: bytes, limit: int = LIMIT) -> tuple[list[Display], bool]:
    reader = ReportReader(limit)
    displays = [decode_display(each) for each in reader.feed(record(DISPLAY, b"".join(fields))) if each]
    reader.finish(cut=False)
    return displays, reader.displays_truncated


@pytest.mark.parametrize(
    ("kind", "mime", "value", "expected"),
    [
        (BINARY, "image/png", b"\x00\xff", "AP8="),
        (BINARY, "text/html", b"<p>\xff", "<p>\ufffd"),
        (BINARY, "image/svg+xml", b"<svg/>", "<svg/>"),
        (BINARY, "application/x-own", b"\x00", "AA=="),
        (TEXT, "image/png", b"AP8=", "AP8="),
        (TEXT, "image/png", b"AP\n8=\n", "AP8="),
        (TEXT, "text/plain", b"\xff", "\ufffd"),
        (TEXT, "application/x-own", b"not base64", "not base64"),
        (TEXT, "application/json", b"[1]", [1]),
        (JSON, "application/vnd.x+json", b'{"a": null}', {"a": None}),
        (JSON, "text/plain", b'"\\ud800"', "?"),
    ],
)
def test_values_have_the_form_of_their_type(kind: bytes, mime: str, value: bytes, expected: object) -> None:
    assert shown(field(kind, mime, value)) == ([Display({mime: expected}, {})], False)


def test_names_of_types_are_in_lower_case() -> None:
    fields = (field(TEXT, "IMAGE/PNG", b"AP8="), field(TEXT, "Application/JSON", b"[1]"))
    assert shown(*fields) == ([Display({"image/png": "AP8=", "application/json": [1]}, {})], False)


def test_of_two_equal_names_the_second_is_dropped() -> None:
    fields = (field(TEXT, "text/html", b"first"), field(TEXT, "Text/HTML", b"second"))
    assert shown(*fields) == ([Display({"text/html": "first"}, {})], True)


@pytest.mark.parametrize(
    "bad",
    [
        field(TEXT, "image/png", b"%%%"),
        field(TEXT, "image/png", b"AAA"),
        field(JSON, "application/json", b"NaN"),
        field(JSON, "application/json", b"{"),
        field(JSON, "application/json", b"[" * 100_000),
        field(JSON, "application/json", b"\xff"),
        field(JSON, "application/json", b"1" * 5000),
        field(JSON, "text/html", b"null"),
        field(JSON, "image/png", b"[]"),
        field(b"?", "text/html", b""),
        field(TEXT, "no type", b""),
        field(TEXT, "text/" + "x" * 128, b""),
        b"t\x00\x09text",
        b"t",
    ],
)
def test_a_bad_value_is_dropped_and_the_others_are_kept(bad: bytes) -> None:
    assert shown(field(TEXT, "text/plain", b"x"), bad) == ([Display({"text/plain": "x"}, {})], True)
    assert shown(bad) == ([], True)


@pytest.mark.parametrize("bad", [b"5", b"[]", b"nothing"])
def test_bad_metadata_is_dropped(bad: bytes) -> None:
    displays, _ = shown(field(TEXT, "text/plain", b"x"), field(METADATA, "", bad))
    assert displays == [Display({"text/plain": "x"}, {})]


def test_the_number_and_the_bytes_of_displays_are_limited() -> None:
    one = record(DISPLAY, field(TEXT, "text/plain", b"x" * 1000))
    reader = ReportReader(LIMIT)
    displays = list(filter(None, reader.feed(one * 200)))
    assert sum(map(len, displays)) <= LIMIT < sum(map(len, displays)) + len(displays[0])
    assert reader.displays_truncated
    small = record(DISPLAY, field(TEXT, "text/plain", b""))
    reader = ReportReader(LIMIT)
    assert len(list(reader.feed(small * 5000))) == 1000
    many = b"".join(field(TEXT, f"text/{n}", b"") for n in range(99))
    [display], truncated = shown(many)
    assert (len(display.data), truncated) == (50, True)


def test_a_supervisor_that_sends_too_much_is_broken() -> None:
    reader = ReportReader(LIMIT)
    allowed = bytes(LIMIT + REPORT_BYTES_EXTRA)
    assert list(reader.feed(allowed)) == []
    with pytest.raises(SandboxBroken):
        list(reader.feed(b"x"))


def test_a_record_that_is_cut_short_is_truncated() -> None:
    reader = ReportReader(LIMIT)
    assert list(reader.feed(record(DISPLAY, bytes(100))[:50])) == []
    reader.finish(cut=False)
    assert reader.displays_truncated


@given(st.binary(max_size=200) | st.lists(st.binary(max_size=9)).map(b"".join))
def test_any_bytes_are_read(data: bytes) -> None:
    for kind in (b"", DISPLAY, EXCEPTION, channel.RESULT):
        reader = ReportReader(LIMIT)
        sent = record(kind, data) if kind else data
        whole = list(reader.feed(sent))
        reader.finish(cut=False)
        pieces = ReportReader(LIMIT)
        assert [each for byte in sent for each in pieces.feed(bytes([byte]))] == whole
        assert pieces.crash == reader.crash
        assert all(json.loads(each)["data"] for each in whole)


def test_an_exception_is_bounded() -> None:
    frames = b"".join(field(channel.FRAME, "f.py", b"%d\0f\0code" % n) for n in range(9))
    payload = (
        field(channel.CAUGHT, "KeyError", b"'k'") + field(channel.CAUSE, "Own" * 99, b"m" * 9000) + frames
    )
    reader = ReportReader(LIMIT)
    list(reader.feed(record(EXCEPTION, payload + field(channel.OWN_LINE, "", b"7"))))
    assert reader.crash is not None
    assert (len(reader.crash.error_type), len(reader.crash.error), reader.crash.error_line) == (200, 4000, 7)
    entries = reader.crash.traceback or ()
    assert [(entry.type[:3], entry.relation, len(entry.frames)) for entry in entries] == [
        ("Key", None, 0),
        ("Own", "cause", 9),
    ]
    reader = ReportReader(LIMIT)
    list(reader.feed(record(EXCEPTION, payload + frames * 1000)))
    assert reader.crash is not None
    assert reader.crash.traceback is None


@pytest.mark.parametrize(
    "bad", [b"", field(channel.FRAME, "f.py", b"1\0f"), field(channel.OMITTED, "", b"x")]
)
def test_a_malformed_exception_is_none(bad: bytes) -> None:
    reader = ReportReader(LIMIT)
    list(reader.feed(record(EXCEPTION, bad)))
    assert reader.crash is None


@given(st.text(max_size=300))
def test_names_of_mime_types_are_safe(name: Any) -> None:
    if is_mime_type(name):
        assert name.isascii()
        assert name.count("/") == 1
        assert not set(name) & set(" ;,\"'<>\\\r\n\0")


def test_a_record_has_a_bounded_number_of_fields() -> None:
    """Otherwise, reading it would occupy the event loop for seconds."""
    assert shown(field(JSON, "a/b", b"1"), *[field(METADATA, "", b"{}")] * 100) == (
        [Display({"a/b": 1}, {})],
        True,
    )
    reader = ReportReader(8 << 20)
    frames = field(CAUGHT, "E", b"message") + field(FRAME, "", b"1\0\0") * 9_000
    assert not list(reader.feed(record(EXCEPTION, frames)))
    assert reader.crash is not None
    assert (reader.crash.error, reader.crash.traceback) == ("message", None)
    reader = ReportReader(8 << 20)
    assert not list(reader.feed(record(EXCEPTION, frames * 2)))
    assert reader.crash is None


MANY = [b"[" + b"[]," * 500_000 + b"[]]", b"[" + b",".join([50 * b"[" + 50 * b"]"] * 10_000) + b"]"]


@pytest.mark.parametrize("value", MANY, ids=["wide", "deep"])
def test_a_json_value_has_a_bounded_number_of_values(value: bytes) -> None:
    assert shown(field(JSON, "application/json", value), limit=8 << 20) == ([], True)


@pytest.mark.parametrize("number", [b"7.123456789012345e+300", b"3e-301", b"1" * 4300])
def test_a_json_value_has_a_bounded_number_of_long_numbers(number: bytes) -> None:
    """Converting many of them to text would occupy the event loop for seconds."""

    def numbers(count: int) -> bytes:
        return b"[" + b", ".join([number] * count) + b"]"

    assert shown(field(JSON, "a/b", numbers(6_000)), limit=32 << 20) == ([], True)
    [display], is_cut = shown(field(JSON, "a/b", numbers(100)), limit=8 << 20)
    assert (json.dumps(display.data["a/b"]).encode(), is_cut) == (numbers(100), False)


def test_a_json_value_has_a_bounded_depth() -> None:
    """A response with a deeper value could fail, and the execution could never be read."""

    def nested(depth: int) -> bytes:
        return (depth // 2) * b'{"a": [' + (depth // 2) * b"]}"

    [display], is_cut = shown(field(JSON, "application/json", nested(DEPTH_MAX)))
    assert (json.dumps(to_json(display)["data"]["application/json"]).encode(), is_cut) == (
        nested(DEPTH_MAX),
        False,
    )
    assert shown(field(JSON, "application/json", nested(DEPTH_MAX + 2))) == ([], True)


@pytest.mark.parametrize(
    "shown_field",
    [
        field(JSON, "a/b", b"[" + b"1," * 400_000 + b"1]"),
        field(JSON, "a/b", b"[" + b'{"a":[]},' * 150_000 + b"1]"),
        field(METADATA, "", b'{"a": [' + b"[]," * 200_000 + b"1]}") + field(TEXT, "text/plain", b"x"),
        field(TEXT, "text/html", "<p>€".encode() * 500_000),
        field(TEXT, "image/png", b"AAAA\n" * 600_000),
        field(BINARY, "image/png", bytes(3_000_000)),
    ],
    ids=["numbers", "objects", "metadata", "text", "base64", "bytes"],
)
def test_a_large_display_lets_other_tasks_run(shown_field: bytes) -> None:
    reader = ReportReader(8 << 20)
    times, begun = [], time.process_time()
    for found in reader.feed(record(DISPLAY, shown_field)):
        times.append(time.process_time() - begun)
        begun = time.process_time()
        if found:
            assert json.loads(found)["data"]
            begun = time.process_time()
    assert not reader.displays_truncated
    assert len(times) > 40
    assert max(times) < sum(times) / 5 + 0.02


def test_a_decoded_display_has_a_bounded_number_of_values() -> None:
    def bounded(*fields: bytes) -> tuple[Display, bool]:
        [line] = filter(None, ReportReader(LIMIT).feed(record(DISPLAY, b"".join(fields))))
        return decode_bounded_display(line, 10)

    large = field(JSON, "a/b", b"[" + b'{"text/html": "no"}, ' * 10 + b"1]")
    small, text = field(JSON, "c/d", b"[1, 2]"), field(TEXT, "text/html", b"<p>, {" * 20)
    kept = {"c/d": [1, 2], "text/html": "<p>, {" * 20}
    assert bounded(text, small) == (Display({"text/html": kept["text/html"], "c/d": [1, 2]}, {}), True)
    assert bounded(large, small, text) == (Display(kept, {}), False)
    assert bounded(large) == (Display({}, {}), False)
    metadata = field(METADATA, "", b'{"a": [' + b"1, " * 20 + b"1]}")
    assert bounded(small, metadata) == (Display({"c/d": [1, 2]}, {}), False)
