"""Test the shares of the pool for any history of requests. The code is pure."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyexec.sandbox.pool.refill import DECAY_SECONDS, Demand

KINDS = st.sampled_from(["standard", "small", "large", "numpy"])
HISTORIES = st.lists(st.tuples(KINDS, st.floats(0, 30)), max_size=60)


def after(history: list[tuple[str, float]]) -> tuple[Demand[str], float]:
    """Record requests, each after a pause in seconds; return the demand and the time of the last request."""
    demand, now = Demand("standard"), 0.0
    for kind, pause in history:
        now += pause
        demand.record(kind, now)
    return demand, now


@given(HISTORIES, st.integers(0, 12), st.floats(0, 1e6))
def test_the_whole_pool_is_allocated_to_requested_kinds_and_the_standard_kind(
    history: list[tuple[str, float]], size: int, later: float
) -> None:
    demand, now = after(history)
    places = demand.allocate(size, now + later)
    assert sum(places.values()) == size
    assert min(places.values(), default=0) >= 0
    assert set(places) <= {kind for kind, _ in history} | {"standard"}


@given(st.lists(KINDS, max_size=60), st.integers(0, 12))
def test_a_kind_requested_more_often_gets_at_least_as_many_sandboxes(history: list[str], size: int) -> None:
    demand, now = after([(kind, 0.0) for kind in history])
    places = demand.allocate(size, now)
    others = set(history) - {"standard"}
    for more, fewer in itertools.permutations(others, 2):
        if history.count(more) > history.count(fewer):
            assert places.get(more, 0) >= places.get(fewer, 0)


@given(HISTORIES, st.integers(1, 12))
def test_without_requests_the_pool_returns_to_the_standard_kind(
    history: list[tuple[str, float]], size: int
) -> None:
    demand, now = after(history)
    places = demand.allocate(size, now + 10 * DECAY_SECONDS)
    assert {kind: count for kind, count in places.items() if count} == {"standard": size}


def test_a_single_request_does_not_change_the_pool() -> None:
    demand, now = after([("large", 0.0)])
    assert demand.allocate(4, now) == {"standard": 4}


def test_the_pool_is_shared_in_proportion_to_the_requests() -> None:
    demand, now = after([("small", 0.0)] * 3)
    assert demand.allocate(4, now) == {"standard": 1, "small": 3}


def test_the_request_rate_decays() -> None:
    demand, now = after([("standard", 0.1)] * 100)
    assert demand.rate(now) == pytest.approx(10, rel=0.1)
    assert demand.rate(now + 60) < 0.01
