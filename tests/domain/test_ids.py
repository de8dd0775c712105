import uuid

from hypothesis import given
from hypothesis import strategies as st

from pyexec.domain.ids import execution_id, is_execution_id, is_session_id, session_id

times = st.integers(0, 2**62)
entropy = st.binary(min_size=8, max_size=8)


@given(times, entropy)
def test_an_id_is_a_uuid_of_version_7(time_ns: int, random: bytes) -> None:
    made = execution_id(time_ns, random)
    assert is_execution_id(made)
    parsed = uuid.UUID(made.removeprefix("exe_"))
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert parsed.int >> 80 == time_ns // 1_000_000


@given(times, st.integers(245, 10**12), entropy, entropy)
def test_ids_sort_by_time(time_ns: int, later: int, first: bytes, second: bytes) -> None:
    """The resolution is 1/4096 of a millisecond: 244.14 ns."""
    assert execution_id(time_ns, first) < execution_id(time_ns + later, second)


@given(times, entropy, entropy)
def test_ids_of_one_moment_differ_by_their_entropy(time_ns: int, first: bytes, second: bytes) -> None:
    kept = 2**62 - 1
    same = int.from_bytes(first, "big") & kept == int.from_bytes(second, "big") & kept
    assert (execution_id(time_ns, first) == execution_id(time_ns, second)) is same


@given(st.lists(times, max_size=20), entropy)
def test_an_id_sorts_after_the_one_before_whatever_the_clock_says(clock: list[int], random: bytes) -> None:
    made: list[str] = []
    for time_ns in clock:
        made.append(execution_id(time_ns, random, after=made[-1] if made else None))
    assert all(map(is_execution_id, made))
    assert made == sorted(set(made))
    assert made == [] or made[0] == execution_id(clock[0], random)


@given(st.text())
def test_other_texts_are_no_ids(text: str) -> None:
    assert not is_execution_id(text)


def test_near_misses_are_no_ids() -> None:
    good = execution_id(0, bytes(8))
    for text in (good + "\n", good[:-1], good + "0", good.upper(), good[4:], " " + good, good[:-1] + "g"):
        assert not is_execution_id(text)


@given(times, st.integers(245, 10**12), entropy, entropy)
def test_session_ids_sort_by_time_and_are_no_execution_ids(
    time_ns: int, later: int, first: bytes, second: bytes
) -> None:
    made = session_id(time_ns, first)
    assert made < session_id(time_ns + later, second)
    assert is_session_id(made)
    assert not is_execution_id(made)
    assert not is_session_id(execution_id(time_ns, first))
