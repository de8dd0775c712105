from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyexec.domain.output_log import OutputLog, Stream
from pyexec.errors import CorruptLog

PRINTED = [Stream.STDOUT, Stream.STDERR, Stream.SETUP]
pieces = st.lists(st.tuples(st.sampled_from(PRINTED), st.binary(max_size=8)), max_size=12)
pieces_and_displays = st.lists(
    st.tuples(st.sampled_from(Stream), st.binary(min_size=1, max_size=8)), max_size=12
)


def output_log_of(parts: list[tuple[Stream, bytes]]) -> OutputLog:
    output_log = OutputLog()
    for stream, data in parts:
        output_log.append(stream, data)
    return output_log


def bytewise(parts: list[tuple[Stream, bytes]]) -> list[tuple[Stream, int]]:
    """Return each byte with its stream, independent of chunk boundaries."""
    return [(stream, byte) for stream, data in parts for byte in data]


@given(pieces)
def test_an_output_log_keeps_every_byte_in_order(parts: list[tuple[Stream, bytes]]) -> None:
    output_log = output_log_of(parts)
    assert bytewise(list(output_log.since(0))) == bytewise(parts)
    for stream in Stream:
        assert output_log.bytes_of(stream) == b"".join(data for which, data in parts if which is stream)
    assert len(output_log) == sum(len(data) for _, data in parts)


@given(pieces, st.data())
def test_chunk_boundaries_of_appends_do_not_matter(
    parts: list[tuple[Stream, bytes]], data: st.DataObject
) -> None:
    cut = []
    for stream, piece in parts:
        at = data.draw(st.integers(0, len(piece)))
        cut += [(stream, piece[:at]), (stream, piece[at:])]
    whole, split = output_log_of(parts), output_log_of(cut)
    assert list(whole.since(0)) == list(split.since(0))
    assert whole.encode() == split.encode()


@given(pieces, st.data())
def test_a_reader_may_go_on_at_any_offset(parts: list[tuple[Stream, bytes]], data: st.DataObject) -> None:
    output_log = output_log_of(parts)
    offset = data.draw(st.integers(0, len(output_log) + 3))
    assert bytewise(list(output_log.since(offset))) == bytewise(parts)[offset:]


@given(pieces, st.data())
def test_an_output_log_can_be_encoded_up_to_a_size(
    parts: list[tuple[Stream, bytes]], data: st.DataObject
) -> None:
    output_log = output_log_of(parts)
    size = data.draw(st.integers(0, len(output_log) + 3))
    kept = OutputLog.decode(output_log.encode(size))
    assert bytewise(list(kept.since(0))) == bytewise(parts)[:size]


@given(pieces)
def test_runs_alternate_between_the_streams(parts: list[tuple[Stream, bytes]]) -> None:
    runs = list(output_log_of(parts).since(0))
    assert all(data for _, data in runs)
    assert all(first[0] is not second[0] for first, second in pairwise(runs))


@given(pieces)
def test_an_output_log_survives_a_round_trip(parts: list[tuple[Stream, bytes]]) -> None:
    output_log = output_log_of(parts)
    decoded = OutputLog.decode(output_log.encode())
    assert list(decoded.since(0)) == list(output_log.since(0))


@given(st.binary(max_size=30) | st.from_regex(rb"[12][ -_0-9a-f]{8}.{0,20}", fullmatch=True))
def test_decoded_data_survives_a_round_trip(stored: bytes) -> None:
    try:
        output_log = OutputLog.decode(stored)
    except CorruptLog:
        return
    assert OutputLog.decode(output_log.encode()).encode() == output_log.encode()
    assert sum(9 + len(data) for _, data in output_log.since(0)) <= len(stored)


@pytest.mark.parametrize(
    "stored",
    [
        b"1",
        b"4" + b"00000001x",
        b"1" + b"00000002x",
        b"1-0000001",
        b"1+0000001x",
        b"1 0000001x",
        b"10_000_01x",
    ],
)
def test_invalid_data_is_corrupt(stored: bytes) -> None:
    with pytest.raises(CorruptLog):
        OutputLog.decode(stored)


@given(pieces.filter(lambda parts: any(data for _, data in parts)), st.data())
def test_a_truncated_output_log_is_corrupt(parts: list[tuple[Stream, bytes]], data: st.DataObject) -> None:
    output_log = output_log_of(parts)
    boundaries, at = {0}, 0
    for _, run in output_log.since(0):
        at += 9 + len(run)
        boundaries.add(at)
    stored = output_log.encode()
    cut = data.draw(st.integers(0, len(stored)).filter(lambda n: n not in boundaries))
    with pytest.raises(CorruptLog):
        OutputLog.decode(stored[:cut])


def test_text_is_utf8_with_invalid_bytes_replaced() -> None:
    output_log = output_log_of(
        [(Stream.STDOUT, "ü".encode()[:1]), (Stream.STDERR, b"x"), (Stream.STDOUT, "ü".encode()[1:])]
    )
    output_log.append(Stream.STDOUT, b"\xff\n")
    assert output_log.text_of(Stream.STDOUT) == "ü\ufffd\n"
    assert output_log.text_of(Stream.STDERR) == "x"


@given(pieces_and_displays)
def test_each_display_is_a_segment_of_its_own(parts: list[tuple[Stream, bytes]]) -> None:
    output_log = OutputLog.decode(output_log_of(parts).encode())
    displays = [data for stream, data in parts if stream is Stream.DISPLAY]
    assert list(output_log.displays()) == displays
    assert [data for stream, data in output_log.since(0) if stream is Stream.DISPLAY] == displays
    printed = [(stream, data) for stream, data in parts if stream is not Stream.DISPLAY]
    assert bytewise(list(output_log.without_displays().since(0))) == bytewise(printed)


@given(pieces_and_displays, st.data())
def test_a_part_of_a_display_is_left_out(parts: list[tuple[Stream, bytes]], data: st.DataObject) -> None:
    output_log = output_log_of(parts)
    displays = [each for stream, each in parts if stream is Stream.DISPLAY]
    size = data.draw(st.integers(0, len(output_log)))
    kept = list(OutputLog.decode(output_log.encode(size)).displays())
    assert kept == displays[: len(kept)]
    rest = [each for stream, each in output_log.since(size) if stream is Stream.DISPLAY]
    assert rest == displays[len(displays) - len(rest) :]
    assert len(kept) + len(rest) in (len(displays), len(displays) - 1)


def test_a_large_display_is_one_piece() -> None:
    output_log = output_log_of([(Stream.STDOUT, b"x" * 100_000), (Stream.DISPLAY, b"y" * 100_000)])
    assert [len(data) for _, data in output_log.since(0)] == [65536, 34464, 100_000]
    assert output_log.bytes_of(Stream.STDOUT) == b"x" * 100_000


def test_bytes_that_move_elsewhere_change_nothing_for_readers() -> None:
    output_log = OutputLog()
    for number in range(5000):
        output_log.append(Stream.STDOUT, b"out %d\n" % number * 10)
        output_log.append(Stream.STDERR, b"err %d\n" % number)
    before, texts = output_log.encode(), output_log.text_of(Stream.STDOUT)
    reading = output_log.pieces({Stream.STDOUT})
    first = next(reading)
    output_log.move_to(b"".join(output_log.chunks(1000)))
    assert (first + b"".join(reading)).decode() == texts
    assert (output_log.encode(), len(output_log)) == (
        before,
        output_log.size_of(Stream.STDOUT) + output_log.size_of(Stream.STDERR),
    )
    output_log.append(Stream.STDOUT, b"more")
    assert output_log.text_of(Stream.STDOUT) == texts + "more"
