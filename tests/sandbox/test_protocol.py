"""Test the server's side of the protocol: whatever a sandbox sends is a valid frame, or the sandbox is broken."""

import base64
import json
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyexec.errors import SandboxBroken
from pyexec.guest import collector, session_frames, wire
from pyexec.sandbox.decoder import JSON_BYTES_MAX, Decoder
from pyexec.sandbox.protocol import (
    FileChunk,
    FileHeader,
    FilesCollected,
    Frame,
    OutputChunk,
    Ready,
    Rejected,
    ReportChunk,
    Retired,
    TransferFrame,
)
from pyexec.sandbox.session_protocol import Synced, TransferEnded

HEADER = struct.Struct("!cI")
KINDS = [
    wire.STDOUT,
    wire.REPORT,
    wire.EXIT,
    collector.FILE,
    collector.DATA,
    collector.COLLECTED,
    session_frames.SESSION,
    session_frames.TRANSFER,
    b"?",
    b"A",
]
LONG_FILE = b" " * JSON_BYTES_MAX + b'{"path": "a", "size": 1}'
END = {
    "reason": "exit",
    "exit_code": 0,
    "signalled": False,
    "cpu_seconds": 0.1,
    "peak_memory_bytes": 1,
    "result_truncated": False,
}
SYNCED = {"event": "synced", "token": "t", "generation": 2, "cell": None, "ended": False}
TRANSFER_ENDED = {"event": "transfer_ended", "id": 1, "error": None, "message": ""}


def frame(kind: bytes, payload: object) -> bytes:
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return HEADER.pack(kind, len(data)) + data + b"\n"


def decoded(data: bytes) -> list[Frame]:
    return list(Decoder().feed(data))


def test_file_frames_are_decoded_for_every_chunk_size() -> None:
    wire = frame(collector.FILE, {"path": "ü/a b", "size": 3}) + frame(
        collector.DATA, base64.b64encode(b"\0\n\xff")
    )
    wire += frame(collector.COLLECTED, {"truncated": True})
    expected = [FileHeader("ü/a b", 3), FileChunk(b"\0\n\xff"), FilesCollected(True)]
    assert decoded(wire) == expected
    decoder = Decoder()
    assert [found for byte in wire for found in decoder.feed(bytes([byte]))] == expected


def test_frames_of_a_transfer_have_raw_bytes() -> None:
    data = b"\n\0" * 5
    sent = frame(session_frames.TRANSFER, HEADER.pack(collector.FILE, 7) + b'{"path": "a", "size": 10}')
    sent += frame(session_frames.TRANSFER, HEADER.pack(collector.DATA, 7) + data)
    assert decoded(sent) == [TransferFrame(7, FileHeader("a", 10)), TransferFrame(7, FileChunk(data))]


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (session_frames.TRANSFER, b"N"),
        (session_frames.TRANSFER, HEADER.pack(collector.FILE, 1) + b"{}"),
        (session_frames.TRANSFER, HEADER.pack(wire.STDOUT, 1)),
        (session_frames.TRANSFER, HEADER.pack(session_frames.TRANSFER, 1) * 3),
        (collector.FILE, {"path": "a"}),
        (collector.FILE, {"size": 1}),
        (collector.FILE, {"path": 1, "size": 1}),
        (collector.FILE, {"path": "a", "size": -1}),
        (collector.FILE, {"path": "a", "size": 1.5}),
        (collector.FILE, {"path": "a", "size": True}),
        (collector.FILE, {"path": "a", "size": 2**60}),
        (collector.FILE, {"path": "a", "size": "1"}),
        (collector.FILE, []),
        (collector.FILE, b"{"),
        (collector.DATA, b"a"),
        (wire.STDOUT, b"\n" * 100),
        (wire.STARTED, {"x": [[]] * JSON_BYTES_MAX}),
        (session_frames.TRANSFER, HEADER.pack(collector.FILE, 1) + LONG_FILE),
        (collector.COLLECTED, {}),
        (wire.EXIT, {**END, "exit_code": 256}),
        (wire.EXIT, {**END, "cpu_seconds": float("inf")}),
        (wire.EXIT, {**END, "cpu_seconds": float("nan")}),
        (wire.EXIT, {**END, "peak_memory_bytes": 2**53}),
        (wire.EXIT, {**END, "process_limit": 10**25}),
        (wire.EXIT, {key: END[key] for key in END if key != "result_truncated"}),
        (session_frames.SESSION, {"event": "unknown"}),
        (session_frames.SESSION, {"event": ["synced"]}),
        (session_frames.SESSION, {**SYNCED, "generation": float("inf")}),
        (session_frames.SESSION, {**SYNCED, "generation": "2"}),
        (session_frames.SESSION, {**SYNCED, "cell": []}),
        (session_frames.SESSION, {**TRANSFER_ENDED, "id": float("inf")}),
        (session_frames.SESSION, {**TRANSFER_ENDED, "error": {}}),
        (session_frames.SESSION, {"event": "restarted", "reason": ["requested"]}),
        (session_frames.SESSION, {"event": "error", "message": 1}),
        (b"?", {}),
    ],
)
def test_an_invalid_frame_is_a_broken_sandbox(kind: bytes, payload: object) -> None:
    with pytest.raises(SandboxBroken):
        decoded(frame(kind, payload))


def test_long_texts_are_cut() -> None:
    """They come into events, answers and the log."""
    sent = frame(wire.READY, {"python": "3" * 5000}) + frame(wire.RETIRED, {"reason": "r" * 5000})
    sent += frame(wire.REJECTED, {"code": "c" * 5000, "message": "m" * 5000})
    assert decoded(sent) == [Ready("3" * 64), Retired("r" * 1000), Rejected("c" * 64, "m" * 1000)]


def test_a_too_long_frame_is_rejected_at_its_header() -> None:
    with pytest.raises(SandboxBroken, match="the limit is"):
        decoded(HEADER.pack(collector.DATA, 2**31))


def test_frames_of_a_session_are_decoded() -> None:
    wire = frame(session_frames.SESSION, SYNCED) + frame(session_frames.SESSION, TRANSFER_ENDED)
    assert decoded(wire) == [
        Synced(token="t", generation=2, cell_nonce=None, ended=False),
        TransferEnded(id=1, error=None, message=""),
    ]


def test_an_unpaired_surrogate_in_a_path_is_replaced() -> None:
    assert decoded(frame(collector.FILE, {"path": "a\ud800", "size": 0})) == [FileHeader("a?", 0)]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
fields = ("path", "size", "truncated", *END, *SYNCED, *TRANSFER_ENDED)
events = st.sampled_from(["synced", "restarted", "transfer_ended", "error", "cell_ended"])
claims = st.fixed_dictionaries({}, optional={**dict.fromkeys(fields, values), "event": events | values})


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may have other work
@given(
    st.lists(st.tuples(st.sampled_from(KINDS), claims | st.binary(max_size=20)), max_size=4),
    st.binary(max_size=9),
)
def test_any_bytes_are_frames_or_a_broken_sandbox(frames: list[tuple[bytes, object]], rest: bytes) -> None:
    try:
        found = decoded(b"".join(frame(kind, payload) for kind, payload in frames) + rest)
    except SandboxBroken:
        return
    for one in found:
        if isinstance(one, FileHeader):
            assert isinstance(one.path, str)
            assert one.path.encode()
            assert 0 <= one.size < 2**60
        elif isinstance(one, FileChunk | OutputChunk | ReportChunk):
            assert isinstance(one.data, bytes)
