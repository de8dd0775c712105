"""Test the shares of the pool for any history of requests. The code is pure."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyexec.sandbox.pool.demand import DECAY_SECONDS, Demand

KINDS = st.sampled_from(["standard", "small", "large", "numpy"])
HISTORIES = st.lists(st.tuples(KINDS, st.floats(0, 30)), max_size=60)


def after(history: list[tuple[str, float]]) -> tuple[Demand[str], float]:
    """The demand after these requests, each so many seconds after the one before; and the time then."""
    demand, now = Demand("standard"), 0.0
    for kind, pause in history:
        now += pause
        demand.record(kind, now)
    return demand, now


@given(HISTORIES, st.integers(0, 12), st.floats(0, 1e6))
def test_all_places_are_given_and_only_to_what_was_asked_for(
    history: list[tuple[str, float]], size: int, later: float
) -> None:
    demand, now = after(history)
    places = demand.allocate(size, now + later)
    assert sum(places.values()) == size
    assert min(places.values(), default=0) >= 0
    assert set(places) <= {kind for kind, _ in history} | {"standard"}


@given(st.lists(KINDS, max_size=60), st.integers(0, 12))
def test_what_is_asked_more_has_no_fewer_places(history: list[str], size: int) -> None:
    demand, now = after([(kind, 0.0) for kind in history])
    places = demand.allocate(size, now)
    others = set(history) - {"standard"}
    for more, fewer in itertools.permutations(others, 2):
        if history.count(more) > history.count(fewer):
            assert places.get(more, 0) >= places.get(fewer, 0)


@given(HISTORIES, st.integers(1, 12))
def test_after_a_long_silence_all_are_standard_again(history: list[tuple[str, float]], size: int) -> None:
    demand, now = after(history)
    places = demand.allocate(size, now + 10 * DECAY_SECONDS)
    assert {kind: count for kind, count in places.items() if count} == {"standard": size}


def test_one_request_is_no_habit() -> None:
    demand, now = after([("large", 0.0)])
    assert demand.allocate(4, now) == {"standard": 4}


def test_places_are_shared_as_the_requests_are() -> None:
    demand, now = after([("small", 0.0)] * 3)
    assert demand.allocate(4, now) == {"standard": 1, "small": 3}


def test_the_rate_is_that_of_the_present() -> None:
    demand, now = after([("standard", 0.1)] * 100)
    assert demand.rate(now) == pytest.approx(10, rel=0.1)
    assert demand.rate(now + 60) < 0.01
