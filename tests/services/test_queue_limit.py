"""The queue limit counts executions that wait, wherever they wait, and is exact when callers arrive at once."""

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from pyexec.domain.environment import Recipe
from pyexec.domain.tenants import DEFAULT_TENANT, Tenants
from pyexec.errors import QueueFull
from pyexec.services.active_runs import ActiveRuns
from pyexec.services.admission import Admission
from pyexec.services.setup_lane import SetupKey, SetupLane
from pyexec.services.slots import Slots
from tests.events import LIMITS, SPEC, claimed, new_id, preparing, released, running, submitted
from tests.services.world import InlineLog


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[InlineLog]:
    log = InlineLog.at(tmp_path)
    yield log
    await log.close()


def slots_of(*, concurrent: int, queue: int) -> Slots:
    return Slots(
        concurrent_max=concurrent, queue_max=queue, memory_mb_max=10**9, overhead_mb=0, tenants=Tenants()
    )


async def test_runs_of_other_replicas_do_not_count_as_queued(log: InlineLog) -> None:
    slots = slots_of(concurrent=1, queue=2)
    slots.reserve_unconditionally(LIMITS, DEFAULT_TENANT)
    for _ in range(5):
        await log.append(new_id(), 0, [submitted(), claimed(), running()])
        await log.append(new_id(), 0, [submitted(), claimed(), preparing()])
    admission = Admission(slots, SetupLane(2, Tenants()), log, ActiveRuns())
    await admission.check(SPEC)
    await log.append(new_id(), 0, [submitted()])
    await admission.check(SPEC)
    await log.append(new_id(), 0, [submitted(), claimed(), released()])
    with pytest.raises(QueueFull):
        await admission.check(SPEC)


@pytest.mark.parametrize(("concurrent", "taken", "queue"), [(1, 1, 3), (1, 1, 0), (2, 0, 0), (3, 1, 2)])
async def test_the_queue_limit_is_exact_for_concurrent_callers(
    log: InlineLog, concurrent: int, taken: int, queue: int
) -> None:
    slots = slots_of(concurrent=concurrent, queue=queue)
    for _ in range(taken):
        slots.reserve_unconditionally(LIMITS, DEFAULT_TENANT)
    admission = Admission(slots, SetupLane(2, Tenants()), log, ActiveRuns())
    admitted, refused = [], []

    async def submit(name: str, upload_seconds: float) -> None:
        try:
            async with admission.accepting(name, SPEC):
                admitted.append(name)
                await anyio.sleep(upload_seconds)
                await log.append(name, 0, [submitted()])
        except QueueFull:
            refused.append(name)

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(submit, new_id(), 0.001 * (number % 3), name=f"caller {number}")
    assert (len(admitted), len(refused)) == (
        concurrent - taken + queue,
        20 - (concurrent - taken + queue),
    )


async def test_waiting_callers_and_accepted_executions_share_the_limit(log: InlineLog) -> None:
    slots = slots_of(concurrent=1, queue=3)
    slots.reserve_unconditionally(LIMITS, DEFAULT_TENANT)
    admission = Admission(slots, SetupLane(2, Tenants()), log, ActiveRuns())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(slots.reserve, LIMITS, 60, DEFAULT_TENANT, name="a caller in the queue")
        await anyio.wait_all_tasks_blocked()
        await log.append(new_id(), 0, [submitted()])
        async with admission.accepting(new_id(), SPEC):
            with pytest.raises(QueueFull):
                await admission.check(SPEC)
        await admission.check(SPEC)
        tasks.cancel_scope.cancel()


def needs(package: str) -> SetupKey:
    return "image", Recipe(requirements_txt=package)


async def test_a_full_lane_refuses_no_run_that_needs_no_setup(log: InlineLog) -> None:
    lane = SetupLane(2, Tenants())
    admission = Admission(slots_of(concurrent=2, queue=0), lane, log, ActiveRuns())
    lane.join(needs("one"), DEFAULT_TENANT)
    await admission.check(SPEC, needs("two"))
    lane.join(needs("two"), DEFAULT_TENANT)
    await admission.check(SPEC)
    with pytest.raises(QueueFull):
        await admission.check(SPEC, needs("three"))


@pytest.mark.parametrize(
    ("slots", "setups", "queue", "admitted"),
    [(3, 1, 0, 1), (3, 1, 2, 3), (1, 3, 0, 1), (1, 3, 2, 3), (2, 2, 1, 3)],
)
async def test_setups_that_wait_share_the_limit_when_callers_arrive_at_once(
    log: InlineLog, slots: int, setups: int, queue: int, admitted: int
) -> None:
    lane = SetupLane(setups, Tenants())
    admission = Admission(slots_of(concurrent=slots, queue=queue), lane, log, ActiveRuns())
    refused = []

    async def run(name: str, upload_seconds: float) -> None:
        try:
            async with admission.accepting(name, SPEC, needs(name)):
                await anyio.sleep(upload_seconds)
                lane.join(needs(name), DEFAULT_TENANT)
                admission.stop_counting(name)
        except QueueFull:
            refused.append(name)

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(run, new_id(), 0.001 * (number % 3), name=f"caller {number}")
    assert (len(lane), len(refused)) == (admitted, 20 - admitted)


async def test_executions_that_share_a_setup_are_limited_by_slots_and_queue(log: InlineLog) -> None:
    lane = SetupLane(1, Tenants())
    admission = Admission(slots_of(concurrent=3, queue=2), lane, log, ActiveRuns())
    for _ in range(5):
        await admission.check(SPEC, needs("one"))
        lane.join(needs("one"), DEFAULT_TENANT)
    with pytest.raises(QueueFull):
        await admission.check(SPEC, needs("one"))
    await admission.check(SPEC)
