"""Test the trace context of W3C and the spans that follow from events."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from pyexec.codec import decode_event, encode_event
from pyexec.domain.events import (
    Adopted,
    Claimed,
    Event,
    Finished,
    Killed,
    KillRequested,
    Preparing,
    Released,
    Running,
    Submitted,
    Terminal,
)
from pyexec.domain.spec import Limits, Spec
from pyexec.domain.timeline import timeline
from pyexec.domain.trace import Span, advance, begin, completing_span
from pyexec.domain.trace_context import execution_context, parse_trace_context

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
VALID = f"00-{TRACE}-{PARENT}-01"
ID = "exe_01a1fc6d73007b42bd309aa3bc816f1b"
LIMITS = Limits(timeout_seconds=1, network_disabled=True, memory_mb=64, disk_mb=64, cpu_shares=1024)
SPEC = Spec(docker_image="python", limits=LIMITS)


def at(seconds: float) -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)


def spans_of(events: Sequence[Event]) -> list[Span]:
    submitted, *others = events
    assert isinstance(submitted, Submitted)
    trace, spans = begin(submitted, execution_context(ID, None, sampled=True), None), []
    for event in others:
        trace, ended = advance(trace, event)
        spans += ended
    assert trace.phase is None
    last = others[-1]
    assert isinstance(last, Terminal)
    return [*spans, completing_span(trace, last, None, last.at)] if trace.kill_requested_at else spans


@pytest.mark.parametrize(
    "header", [VALID, f" {VALID}\t", f"cc-{TRACE}-{PARENT}-01-later", f"00-{TRACE}-{PARENT}-ff"]
)
def test_a_valid_header_is_read_and_written_as_version_00(header: str) -> None:
    context = parse_trace_context([header])
    assert context is not None
    assert context.traceparent == VALID


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [VALID, VALID],
        [""],
        [VALID.upper()],
        [f"{VALID}-more"],
        [f"ff-{TRACE}-{PARENT}-01"],
        [f"00-{'0' * 32}-{PARENT}-01"],
        [f"00-{TRACE}-{'0' * 16}-01"],
        [f"cc-{TRACE}-{PARENT}-01.later"],
        [f"00-{TRACE}-{PARENT}"],
        [f"{VALID}\r\nx: y"],
    ],
)
def test_a_malformed_header_is_ignored(headers: list[str]) -> None:
    assert parse_trace_context(headers) is None


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["a=1", "b@c=2,,"], "a=1,b@c=2"),
        (["a=1,a=2"], None),
        (["A=1"], None),
        (["a"], None),
        ([f"a={'x' * 256},b={'y' * 256}"], None),
        ([",".join(f"k{n}=1" for n in range(33))], None),
        ([""], None),
    ],
)
def test_tracestate(values: list[str], expected: str | None) -> None:
    context = parse_trace_context([VALID], values)
    assert context is not None
    assert context.tracestate == expected


def test_the_context_travels_in_the_first_event() -> None:
    plain = Submitted(at=at(0), nonce="a", spec=SPEC)
    assert b"trace" not in encode_event(plain)
    traced = Submitted(at=at(0), nonce="a", spec=SPEC, traceparent=VALID, tracestate="a=1")
    assert decode_event(encode_event(traced)) == traced


def test_each_phase_is_a_span_of_the_replica_that_owned_it() -> None:
    spans = spans_of(
        [
            Submitted(at=at(0), nonce="1", spec=SPEC),
            Claimed(at=at(1), nonce="2", replica="a"),
            Released(at=at(2), nonce="3", reason="shutdown"),
            Claimed(at=at(3), nonce="4", replica="b"),
            Preparing(at=at(4), nonce="5"),
            Running(at=at(5), nonce="6", engine="e", container="c"),
            Adopted(at=at(6), nonce="7", replica="c"),
            Finished(at=at(7), nonce="8", exit_code=0),
        ]
    )
    found = [(span.name, span.start, span.end, span.attributes.get("pyexec.replica")) for span in spans]
    assert found == [
        ("queued", at(0), at(1), None),
        ("claimed", at(1), at(2), "a"),
        ("queued", at(2), at(3), None),
        ("claimed", at(3), at(4), "b"),
        ("preparing", at(4), at(5), "b"),
        ("running", at(5), at(6), "b"),
        ("running", at(6), at(7), "c"),
    ]
    assert len({span.span_id for span in spans}) == len(spans)


def test_the_spans_are_the_phases_of_the_timeline() -> None:
    events: list[Event] = [
        Submitted(at=at(0), nonce="1", spec=SPEC),
        Claimed(at=at(1), nonce="2", replica="a"),
        Preparing(at=at(3), nonce="3"),
        Running(at=at(6), nonce="4", engine="e", container="c"),
        KillRequested(at=at(10), nonce="5"),
        Killed(at=at(15), nonce="6"),
    ]
    names = [event.name for event in events]
    phases = [(each.name, each.seconds) for each in timeline(ID, events, at(15)).phases]
    assert [(span.name, (span.end - span.start).total_seconds()) for span in spans_of(events)] == phases
    trace = begin(Submitted(at=at(0), nonce="1", spec=SPEC), execution_context(ID, None, sampled=True), None)
    for event in events[1:]:
        trace, _ = advance(trace, event)
    assert [name for name, _ in trace.history] == names


def test_no_span_ends_before_its_start() -> None:
    """The clock of the second writer is behind."""
    (span,) = spans_of([Submitted(at=at(5), nonce="1", spec=SPEC), Killed(at=at(1), nonce="2")])
    assert span.start == span.end == at(5)
