"""The setup lane is bounded and first come, first served; executions that need the same setup share one place."""

import re
from collections import Counter

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyexec.domain.tenants import DEFAULT_TENANT, Tenants
from pyexec.errors import QueueTimeout
from pyexec.services.reservation import Reservation
from pyexec.services.setup_lane import SetupKey, SetupLane, SetupPlace
from pyexec.services.slots import Slots

ONE, TWO, THREE = keys = [("image", None), ("other", None), ("third", None)]


@given(st.integers(1, 3), st.lists(st.one_of(st.sampled_from(keys), st.integers(0, 20)), max_size=30))
def test_at_most_so_many_setups_have_begun_and_none_waits_without_need(
    size: int, steps: list[SetupKey | int]
) -> None:
    lane = SetupLane(size, Tenants())
    inside: list[SetupPlace] = []
    for step in steps:
        if not isinstance(step, int):
            at_once = lane.begins_at_once(step, DEFAULT_TENANT)
            inside.append(lane.join(step, DEFAULT_TENANT))
            assert inside[-1].begun.is_set() == at_once
        elif inside:
            lane.leave(inside.pop(step % len(inside)), DEFAULT_TENANT)
        begun = {place for place in inside if place.begun.is_set()}
        waiting = {place for place in inside if not place.begun.is_set()}
        assert len(begun) == min(size, len(begun | waiting))
        assert Counter(place.key for place in waiting) == Counter({place.key for place in waiting})
        assert lane.count().running == sum(place in begun for place in inside)
        assert len(lane) == len(inside)


def test_setups_begin_in_the_order_of_arrival() -> None:
    lane = SetupLane(1, Tenants())
    first, second, third = (lane.join(key, DEFAULT_TENANT) for key in keys)
    lane.leave(second, DEFAULT_TENANT)
    lane.leave(first, DEFAULT_TENANT)
    assert third.begun.is_set()
    assert not second.begun.is_set()


def test_a_setup_that_may_be_over_is_not_joined() -> None:
    """Otherwise requests whose setup always fails could keep their place forever."""
    lane = SetupLane(1, Tenants())
    assert lane.join(ONE, DEFAULT_TENANT) is lane.join(ONE, DEFAULT_TENANT)
    other = lane.join(TWO, DEFAULT_TENANT)
    lane.leave(lane._places[0], DEFAULT_TENANT)
    again = lane.join(ONE, DEFAULT_TENANT)
    lane.leave(lane._places[0], DEFAULT_TENANT)
    assert (other.begun.is_set(), again.begun.is_set()) == (True, False)


async def test_a_wait_ends_at_its_limit() -> None:
    lane = SetupLane(1, Tenants())
    lane.join(ONE, DEFAULT_TENANT)
    place = lane.join(TWO, DEFAULT_TENANT)
    with pytest.raises(QueueTimeout, match="no setup could begin"):
        await lane.wait(place, 0.01)
    with anyio.fail_after(1):
        await lane.wait(lane._places[0], 0.01)


async def test_the_message_of_a_queue_timeout_names_the_configured_time() -> None:
    """Name the whole time, also if an execution has spent a part of it in the other queue."""
    lane = SetupLane(1, Tenants())
    lane.join(ONE, DEFAULT_TENANT)
    slots = Slots(concurrent_max=1, queue_max=1, memory_mb_max=1, overhead_mb=0, tenants=Tenants())
    reservation = Reservation(slots=slots, lane=lane, seconds_left=300, tenant=DEFAULT_TENANT)
    reservation.seconds_left = 0.01
    reservation.join_setup(TWO)
    with pytest.raises(QueueTimeout, match=re.escape("within PYEXEC_QUEUE_TIMEOUT (300 s)")):
        await reservation.wait_for_setup()
