"""Test how long an execution that the leader has assigned waits for a slot: the time before the claim counts."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from pyexec.domain.execution import fold
from pyexec.domain.plan import Claim
from pyexec.domain.tenants import DEFAULT_TENANT, Tenants
from pyexec.services.active_runs import ActiveRuns
from pyexec.services.event_log import CorruptLogReporter
from pyexec.services.inbox import InboxWorker
from pyexec.services.plan_events import append_of
from pyexec.services.setup_lane import SetupLane
from pyexec.services.slots import Slots
from tests.events import LIMITS, claimed, new_id, submitted
from tests.services.world import InlineLog

QUEUE_TIMEOUT = 60.0


class SlowSetups:
    """Replaces `Preparation`: says whether a setup is needed, and records how long the run may still wait for it."""

    def __init__(self, *, needed: bool) -> None:
        self.needed = needed
        self.seconds_left: list[float] = []

    async def needs_setup(self, spec: object) -> bool:
        return self.needed

    async def place_from_payload(self, run: object, reservation: Any) -> None:
        self.seconds_left.append(reservation.seconds_left)


@pytest.mark.parametrize("needs_setup", [False, True])
async def test_the_time_before_the_claim_counts(tmp_path: Path, needs_setup: bool) -> None:
    log, tenants, execution = InlineLog.at(tmp_path), Tenants(), new_id()
    waited = append_of(
        Claim(execution=fold(execution, [submitted()]), replica="replica-1"), QUEUE_TIMEOUT, queued_ms=59_900
    )
    await log.append(execution, 0, [submitted(payload="payload"), waited.event])
    slots = Slots(concurrent_max=1, queue_max=1, memory_mb_max=100_000, overhead_mb=0, tenants=tenants)
    slots.reserve_unconditionally(LIMITS, DEFAULT_TENANT)
    released: list[str] = []
    preparation: Any = SlowSetups(needed=needs_setup)
    runner: Any = SimpleNamespace(
        replica="replica-1",
        resolve_later=lambda execution_id, _: released.append(execution_id),
        launch=lambda _, place: tasks.start_soon(place, name="place"),
    )
    worker = InboxWorker(
        log=log,
        slots=slots,
        lane=SetupLane(1, tenants),
        active_runs=ActiveRuns(),
        preparation=preparation,
        runner=runner,
        corrupt_logs=CorruptLogReporter(),
        queue_timeout_seconds=QUEUE_TIMEOUT,
    )
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            await worker._handle(execution, tasks)
    assert (released, preparation.seconds_left) == (
        ([], [pytest.approx(0.1)]) if needs_setup else ([execution], [])
    )
    await log.close()


def test_the_time_in_the_queue_is_part_of_the_state() -> None:
    assert fold("e", [submitted(), claimed(queued_ms=1500)]).queued_ms == 1500
