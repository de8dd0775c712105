"""Slots go to tenants in turns; a tenant at its limit delays no other; the queue limit counts each tenant alone."""

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from attrs import evolve

from pyexec.domain.tenants import Tenant, Tenants
from pyexec.errors import QueueFull
from pyexec.services.active_runs import ActiveRuns
from pyexec.services.admission import Admission
from pyexec.services.setup_lane import SetupLane
from pyexec.services.slots import Slot, Slots
from tests.events import LIMITS, SPEC, claimed, new_id, submitted
from tests.services.world import InlineLog

TENANTS = Tenants(
    (
        Tenant(name="heavy", weight=3),
        Tenant(name="light"),
        Tenant(name="capped", max_running=1, max_queued=1, max_setups=1),
    )
)


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[InlineLog]:
    log = InlineLog.at(tmp_path)
    yield log
    await log.close()


def slots_of(*, concurrent: int, queue: int = 100, memory_mb: int = 10**9) -> Slots:
    return Slots(
        concurrent_max=concurrent, queue_max=queue, memory_mb_max=memory_mb, overhead_mb=0, tenants=TENANTS
    )


def spec_of(tenant: str):
    return evolve(SPEC, tenant=tenant)


async def starts_of(slots: Slots, holder: Slot, waiting: str, count: int) -> list[str]:
    """Let `waiting` wait in this order, then pass the one slot on; return the tenants in the order of their starts."""
    started: list[str] = []

    async def run(tenant: str) -> None:
        slot = await slots.reserve(LIMITS, 60, tenant)
        started.append(tenant)
        slots.release(slot)

    async with anyio.create_task_group() as tasks:
        for tenant in waiting.split():
            tasks.start_soon(run, tenant, name=f"run of {tenant}")
            await anyio.wait_all_tasks_blocked()
        slots.release(holder)
    assert slots.queue_length == 0
    return started[:count]


async def test_waiting_tenants_share_one_slot_by_their_weights() -> None:
    slots = slots_of(concurrent=1)
    holder = slots.reserve_unconditionally(LIMITS, "light")
    started = await starts_of(slots, holder, "heavy " * 30 + "light " * 30, 20)
    assert abs(Counter(started)["heavy"] - 15) <= 1


async def test_a_late_tenant_gets_the_next_slot_of_a_flood() -> None:
    slots = slots_of(concurrent=1)
    holder = await slots.reserve(LIMITS, 1, "heavy")
    assert (await starts_of(slots, holder, "heavy " * 50 + "light", 1)) == ["light"]


async def test_a_tenant_at_its_limit_delays_no_other() -> None:
    slots = slots_of(concurrent=3)
    held = await slots.reserve(LIMITS, 1, "capped")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(slots.reserve, LIMITS, 60, "capped", name="waits at the limit")
        await anyio.wait_all_tasks_blocked()
        assert slots.try_reserve(LIMITS, "capped") is None
        assert slots.room_for(LIMITS, "light") == 2
        assert slots.try_reserve(LIMITS, "light") is not None
        assert (slots.queue_length, slots.in_use_by("capped"), slots.free) == (1, 1, 1)
        slots.release(held)
        assert (slots.queue_length, slots.in_use_by("capped")) == (0, 1)


async def test_a_large_run_is_not_overtaken_for_ever_by_small_ones_of_another_tenant() -> None:
    large = evolve(LIMITS, memory_mb=5000)
    slots = slots_of(concurrent=4, memory_mb=8000)
    held = [slots.try_reserve(LIMITS, "light") for _ in range(2)]
    order: list[str] = []

    async def run(limits, tenant: str) -> None:
        await slots.reserve(limits, 60, tenant)
        order.append(tenant)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run, large, "heavy", name="large")
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(run, LIMITS, "light", name="small")
        await anyio.wait_all_tasks_blocked()
        assert order == []
        for slot in held:
            assert slot is not None
            slots.release(slot)
            await anyio.wait_all_tasks_blocked()
        assert order[0] == "heavy"
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("holds", ["program", "session"])
async def test_a_tenant_that_waits_for_its_own_memory_delays_no_other(holds: str) -> None:
    """Nor does its program starve: once the tenant holds nothing, the others wait for it."""
    large, small = (evolve(LIMITS, memory_mb=memory_mb, disk_mb=0) for memory_mb in (6000, 1000))
    slots = slots_of(concurrent=9, memory_mb=10_000)
    held = slots.try_reserve(large, "heavy") if holds == "program" else None
    if held is None:
        assert slots.try_reserve_memory(large, 0, "heavy", keep=small)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(slots.reserve, large, 60, "heavy", name="waits for its own tenant")
        await anyio.wait_all_tasks_blocked()
        assert slots.try_reserve(small, "heavy") is None
        others = [slots.try_reserve(small, "light") for _ in range(4)]
        assert slots.try_reserve_memory(small, 0, "heavy", keep=evolve(small, memory_mb=0)) is None
        assert all(others)
        if held is None:
            slots.release_memory(6000, "heavy")
        else:
            slots.release(held)
        assert (slots.queue_length, slots.in_use_by("heavy")) == (0, 1)


async def test_a_large_program_starts_before_later_ones_once_its_tenant_holds_nothing() -> None:
    large, half = (evolve(LIMITS, memory_mb=memory_mb, disk_mb=0) for memory_mb in (9000, 5000))
    slots = slots_of(concurrent=9, memory_mb=10_000)
    own, other = slots.try_reserve(half, "heavy"), slots.try_reserve(half, "light")
    assert own is not None
    assert other is not None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(slots.reserve, large, 60, "heavy", name="large")
        await anyio.wait_all_tasks_blocked()
        slots.release(own)
        assert slots.try_reserve(half, "light") is None
        slots.release(other)
        assert (slots.queue_length, slots.in_use_by("heavy")) == (0, 1)


async def test_a_program_that_fits_in_no_memory_of_the_server_delays_no_other_tenant() -> None:
    """For example, it was accepted before a restart with a lower limit."""
    too_large, small = (evolve(LIMITS, memory_mb=memory_mb, disk_mb=0) for memory_mb in (11_000, 1000))
    slots = slots_of(concurrent=9, memory_mb=10_000)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(slots.reserve, too_large, 60, "heavy", name="too large")
        await anyio.wait_all_tasks_blocked()
        assert slots.try_reserve(small, "light") is not None
        tasks.cancel_scope.cancel()


async def test_the_queue_limit_counts_each_tenant_alone(log: InlineLog) -> None:
    slots = slots_of(concurrent=1, queue=2)
    slots.reserve_unconditionally(LIMITS, "light")
    admission = Admission(slots, SetupLane(2, TENANTS), log, ActiveRuns())
    for tenant, limit in {"heavy": 2, "light": 2, "capped": 1}.items():
        for _ in range(limit):
            await admission.check(spec_of(tenant))
            await log.append(new_id(), 0, [evolve(submitted(), spec=spec_of(tenant))])
        with pytest.raises(QueueFull) as refused:
            await admission.check(spec_of(tenant))
        limit_name = "max_queued of tenant capped" if tenant == "capped" else "PYEXEC_MAX_QUEUED"
        assert f"the queue is full ({limit_name}: {limit})" in str(refused.value)


async def test_executions_of_a_tenant_at_its_limit_do_not_count_for_another(log: InlineLog) -> None:
    slots = slots_of(concurrent=3, queue=0)
    slots.reserve_unconditionally(LIMITS, "capped")
    admission = Admission(slots, SetupLane(2, TENANTS), log, ActiveRuns())
    await log.append(new_id(), 0, [evolve(submitted(), spec=spec_of("capped")), claimed()])
    await admission.check(spec_of("light"))


def test_setups_of_a_tenant_that_floods_the_lane_do_not_delay_another() -> None:
    lane = SetupLane(1, TENANTS)
    flood = [lane.join((f"image-{number}", None), "light") for number in range(10)]
    late = lane.join(("image", None), "heavy")
    assert (lane.count(tenant="heavy").waiting, lane.count(tenant="light").running) == (1, 1)
    lane.leave(flood[0], "light")
    assert late.begun.is_set()
    assert not any(place.begun.is_set() for place in flood[1:])
    lane.leave(late, "heavy")
    assert flood[1].begun.is_set()


def test_a_tenant_holds_at_most_its_number_of_setups() -> None:
    lane = SetupLane(2, TENANTS)
    first, second, third = (lane.join((f"image-{number}", None), "capped") for number in range(3))
    assert (lane.count().running, lane.count().waiting) == (1, 2)
    assert not lane.begins_at_once(("image", None), "capped")
    assert lane.begins_at_once(("image", None), "light")
    other = lane.join(("image", None), "light")
    assert other.begun.is_set()
    lane.leave(other, "light")
    assert not second.begun.is_set()
    assert lane.join(second.key, "light") is second
    assert (second.begun.is_set(), third.begun.is_set()) == (True, False)
    lane.leave(second, "light")
    lane.leave(second, "capped")
    lane.leave(first, "capped")
    assert third.begun.is_set()


async def test_an_execution_that_waits_for_a_slot_keeps_only_its_memory_free_of_sessions() -> None:
    small, large = (evolve(LIMITS, memory_mb=memory_mb, disk_mb=0) for memory_mb in (100, 700))
    slots = slots_of(concurrent=1, memory_mb=1000)
    assert slots.try_reserve(small, "light")
    async with anyio.create_task_group() as tasks:
        for limits in (small, large):
            tasks.start_soon(slots.reserve, limits, 60, "light", name="waits for the slot")
        await anyio.wait_all_tasks_blocked()
        found = [slots.try_reserve_memory(small, 0, "light", keep=small) for _ in range(3)]
        assert found == [100, 100, None]
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("total_mb", "granted"),
    [(99, 0), (150, 1), (250, 1), (300, 2)],
)
def test_only_a_machine_for_two_sandboxes_keeps_one_free_of_sessions(total_mb: int, granted: int) -> None:
    limits = evolve(LIMITS, memory_mb=100, disk_mb=0)
    slots = slots_of(concurrent=1, memory_mb=total_mb)
    found = [slots.try_reserve_memory(limits, 0, "light", keep=limits) for _ in range(3)]
    assert found == [100] * granted + [None] * (3 - granted)
