"""Test which lines of the server the supervisor of a session accepts."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyexec.guest.session_frames import CellFrames
from pyexec.guest.session_lines import LINE_BYTES_MAX, LineReader
from pyexec.guest.wire import PIECE
from pyexec.sandbox.session_protocol import json_line, line


def commands(data: bytes, generation: int = 1, size: int = 7) -> Sequence[str]:
    reader = LineReader(generation)
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    return [command for piece in pieces for command, _ in reader.feed(piece)]


def test_lines_arrive_in_pieces_of_any_size() -> None:
    data = json_line("CELL", 1, code="x") + line("DATA", 1, b"") + json_line("ACK", 1)
    assert [commands(data, size=size) for size in (1, 7, 1000)] == [["CELL", "DATA", "ACK"]] * 3


BEGUN = json_line("CELL", 1, code="print('twice')", nonce="abc")


@given(cut=st.integers(1, len(BEGUN) - 2))
def test_a_line_that_a_dead_replica_has_begun_is_dropped(cut: int) -> None:
    broken = BEGUN[:cut]
    assert commands(broken + b"\n" + json_line("SYNC", 2, token="t")) == ["SYNC"]
    reader = LineReader(1)
    list(reader.feed(broken + b"\n"))
    assert reader.generation == 1


def test_a_line_of_an_earlier_generation_is_dropped() -> None:
    data = json_line("SYNC", 5) + json_line("CELL", 4) + json_line("LEASE", 5) + json_line("CELL", 1)
    assert commands(data) == ["SYNC", "LEASE"]


@pytest.mark.parametrize(
    "broken",
    [b"", b"\n", b"CELL", b"CELL 1 00000000 {}", b"CELL -1 a {}", b"\xff\0 1", b"cell 1 " + b"0" * 8],
)
def test_a_malformed_line_is_dropped(broken: bytes) -> None:
    assert commands(broken + b"\n" + json_line("ACK", 1)) == ["ACK"]


def test_a_line_without_end_takes_little_memory() -> None:
    reader = LineReader(1)
    for _ in range(3 * LINE_BYTES_MAX // 65536):
        assert not list(reader.feed(b"x" * 65536))
    assert sum(map(len, reader.parts)) <= LINE_BYTES_MAX
    assert [command for command, _ in reader.feed(b"\n" + json_line("ACK", 1))] == ["ACK"]


@given(st.lists(st.tuples(st.sampled_from([b"1", b"2", b"E"]), st.binary(min_size=1, max_size=50))))
def test_the_frames_of_a_cell_are_kept_in_order(pieces: list[tuple[bytes, bytes]]) -> None:
    kept = CellFrames()
    for kind, piece in pieces:
        kept.add(kind, piece)

    def flat(records: list[tuple[bytes, bytes]]) -> list[tuple[bytes, int]]:
        return [(kind, byte) for kind, piece in records for byte in piece]

    assert flat(list(kept)) == flat(pieces)


def test_single_bytes_of_one_stream_take_little_memory() -> None:
    kept = CellFrames()
    for _ in range(100_000):
        kept.add(b"1", b"x")
    assert len(kept.data) < 101_000
    assert all(len(piece) <= PIECE for _, piece in kept)
