"""Test which lines of the server the supervisor of a session accepts."""

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyexec.guest.session_frames import CellFrames
from pyexec.guest.session_lines import DATA_BYTES_MAX, LINE_BYTES_MAX, MARK, LineReader
from pyexec.guest.wire import PIECE
from pyexec.sandbox.session_connection import FLUSH
from pyexec.sandbox.session_protocol import DATA_BYTES, file_data, json_line, line


def lines(data: bytes, generation: int = 1, size: int = 7) -> list[tuple[str, bytes, bytes]]:
    reader = LineReader(generation)
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    return [found for piece in pieces for found in reader.feed(piece)]


def commands(data: bytes, generation: int = 1, size: int = 7) -> Sequence[str]:
    return [command for command, _, _ in lines(data, generation, size)]


def data_line(generation: int, content: bytes, at: int = 0) -> bytes:
    payload, data = file_data(1, at, content)
    return line("DATA", generation, payload, data)


def contents(data: bytes, generation: int = 1, size: int = 65536) -> list[bytes]:
    return [data for command, _, data in lines(data, generation, size) if command == "DATA"]


def test_lines_arrive_in_pieces_of_any_size() -> None:
    data = json_line("CELL", 1, code="x") + data_line(1, b"a\nb") + data_line(1, b"") + json_line("ACK", 1)
    for size in (1, 7, 1000):
        assert commands(data, size=size) == ["CELL", "DATA", "DATA", "ACK"]
        assert contents(data, size=size) == [b"a\nb", b""]


BEGUN = json_line("CELL", 1, code="print('twice')", nonce="abc")


@given(cut=st.integers(1, len(BEGUN) - 1))
def test_a_line_that_a_dead_replica_has_begun_is_dropped(cut: int) -> None:
    broken = BEGUN[:cut]
    assert commands(broken + FLUSH + json_line("SYNC", 2, token="t"), size=65536) == ["SYNC"]
    reader = LineReader(1)
    list(reader.feed(broken + FLUSH))
    assert reader.generation == 1


FORGED = b"\n" + json_line("SYNC", 10**9, token="forged") + json_line("CELL", 10**9, nonce="forged")
FILE = data_line(1, FORGED * 100)


@given(cut=st.integers(1, len(FILE) - 2), late=st.booleans())
def test_bytes_of_a_file_are_never_taken_for_a_line(cut: int, late: bool) -> None:
    rest = FILE[cut:] + b"\n" if late else b""
    data = FILE[:cut] + FLUSH + json_line("SYNC", 2, token="t") + rest + json_line("LEASE", 2)
    assert commands(data, size=65536) == ["SYNC", "LEASE"]


@given(st.lists(st.sampled_from([MARK, MARK[:3], MARK[3:], b"\n", b"x"])))
def test_bytes_of_a_file_do_not_contain_the_beginning_of_a_line(parts: list[bytes]) -> None:
    content = b"".join(parts)
    payload, data = file_data(1, 0, content)
    assert MARK not in payload + data
    ((_, found, read),) = lines(line("DATA", 1, payload, data))
    assert (read == content) is not json.loads(found)["base64"]


def test_the_largest_piece_of_a_file_arrives() -> None:
    for content in (bytes(DATA_BYTES), (MARK * DATA_BYTES)[:DATA_BYTES]):
        data = data_line(1, content)
        assert [len(each) for each in contents(data)] == [len(file_data(1, 0, content)[1])]
    assert len(FLUSH) > DATA_BYTES_MAX


def test_a_line_of_an_earlier_generation_is_dropped_with_its_bytes() -> None:
    data = json_line("SYNC", 5) + json_line("CELL", 4) + json_line("LEASE", 5) + json_line("CELL", 1)
    assert commands(data) == ["SYNC", "LEASE"]
    assert commands(json_line("SYNC", 5) + data_line(4, FORGED) + data_line(5, b"x")) == ["SYNC", "DATA"]


def test_a_command_that_is_sent_again_counts_once_in_a_generation() -> None:
    kill, interrupt = (
        json_line("KILL", 1, number=2, nonce="a"),
        json_line("INTERRUPT", 1, number=1, nonce="a"),
    )
    assert commands(kill + interrupt + kill + interrupt) == ["KILL", "INTERRUPT"]
    assert commands(kill + json_line("SYNC", 2) + kill + json_line("KILL", 2, number=1)) == [
        "KILL", "SYNC", "KILL",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"\n",
        b"CELL",
        b"CELL 1 00000000 {}",
        MARK + b"CELL 1 00000000 {}",
        MARK + b"CELL -1 a {}",
        b"\xff\0 1",
        MARK + b"cell 1 " + b"0" * 8,
        json_line("ACK", 1).removeprefix(MARK),
    ],
)
def test_a_malformed_line_is_dropped(broken: bytes) -> None:
    assert commands(broken + b"\n" + json_line("ACK", 1)) == ["ACK"]


def test_a_line_without_end_takes_little_memory() -> None:
    reader = LineReader(1)
    for _ in range(3 * LINE_BYTES_MAX // 65536):
        assert not list(reader.feed(b"x" * 65536))
    assert sum(map(len, reader.parts)) <= LINE_BYTES_MAX
    assert [command for command, _, _ in reader.feed(b"\n" + json_line("ACK", 1))] == ["ACK"]


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
