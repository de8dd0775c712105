"""The leader closes the sessions of dead replicas, ends their cells once, and deletes closed sessions."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from pyexec.adapters.single_member import SingleMember
from pyexec.domain.events import Event
from pyexec.domain.execution import fold
from pyexec.domain.session import Session, fold_session
from pyexec.domain.tenants import Tenants
from pyexec.domain.webhooks import WebhookPolicy
from pyexec.services.active_runs import ActiveRuns
from pyexec.services.clock import now
from pyexec.services.event_log import CorruptLogReporter
from pyexec.services.reconciler import Reconciler, ReconcilerConfig
from pyexec.services.retention import Retention
from pyexec.services.sessions.reconciler import SessionReconciler
from pyexec.services.setup_lane import SetupLane
from pyexec.services.slots import Slots
from pyexec.services.webhooks import WebhookDeliveries
from tests.contract.logs import member
from tests.events import (
    claimed,
    closed,
    kill_requested,
    new_id,
    new_session_id,
    opened,
    placed,
    running,
    submitted,
)
from tests.services.failing_blobs import FailingBlobs
from tests.services.replicas import NoReceiver
from tests.services.world import InlineLog

ME, GONE = "rep_me", "rep_gone"


class SweptBlobs(FailingBlobs):
    async def sweep(self, *_: object) -> None:
        return None


def reconciler_of(log: InlineLog, membership: SingleMember) -> Reconciler:
    corrupt_logs, tenants = CorruptLogReporter(), Tenants()
    return Reconciler(
        ReconcilerConfig(replica=ME, queue_timeout_seconds=0.0, adoption_seconds=0.0),
        log=log,
        membership=membership,
        slots=Slots(concurrent_max=2, queue_max=2, memory_mb_max=4096, overhead_mb=0, tenants=tenants),
        lane=SetupLane(1, tenants),
        active_runs=ActiveRuns(),
        retention=Retention(
            log=log, blobs=SweptBlobs(), corrupt_logs=corrupt_logs, ttl_seconds=300, webhook_seconds=300
        ),
        webhooks=WebhookDeliveries(
            log=log,
            blobs=SweptBlobs(),
            sender=NoReceiver(),
            policy=WebhookPolicy(),
            shows_tenant=False,
            corrupt_logs=corrupt_logs,
        ),
        sessions=SessionReconciler(
            log.sessions, adoption_seconds=0.0, ttl_seconds=300, corrupt_logs=corrupt_logs
        ),
        corrupt_logs=corrupt_logs,
    )


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[InlineLog]:
    log = InlineLog.at(tmp_path)
    yield log
    await log.close()


async def lead_until(log: InlineLog, condition: Callable[[], Awaitable[bool]]) -> None:
    membership = SingleMember()
    await membership.join(member(ME))
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reconciler_of(log, membership).run)
            while True:
                if await condition():
                    break
                await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()


async def session_of(log: InlineLog, session_id: str) -> Session:
    return fold_session(session_id, await log.sessions.read(session_id))


async def test_a_lost_session_is_closed_and_its_cells_end_as_what_they_were(log: InlineLog) -> None:
    lost, kept = new_session_id(), new_session_id()
    await log.sessions.append(lost, 0, [opened(), placed(GONE)])
    await log.sessions.append(kept, 0, [opened(), placed(ME)])

    async def cell(session: str, replica: str, *events: Event) -> str:
        made = new_id()
        await log.append(made, 0, [submitted(pinned=replica, session=session), *events])
        return made

    ran = await cell(lost, GONE, claimed(GONE), running())
    killed = await cell(lost, GONE, claimed(GONE), running(), kill_requested())
    waited = await cell(lost, GONE)
    other = await cell(kept, ME)
    other_of_the_dead = await cell(kept, GONE)

    async def is_done() -> bool:
        return set((await log.open_executions()).lengths) == {other, other_of_the_dead}

    await lead_until(log, is_done)
    session = await session_of(log, lost)
    assert (session.status, session.close_reason) == ("closed", "lost")
    assert (await session_of(log, kept)).is_open
    ends = {each: fold(each, await log.read(each)) for each in (ran, killed, waited)}
    assert ends[ran].terminal is not None
    assert getattr(ends[ran].terminal, "error_type", None) == "lost"
    assert ends[killed].status == "killed"
    assert getattr(ends[waited].terminal, "error_type", None) == "session_closed"


async def test_closed_sessions_are_deleted_after_their_retention(log: InlineLog) -> None:
    old, new = new_session_id(), new_session_id()
    await log.sessions.append(old, 0, [opened(), placed(ME), closed(at=now() - timedelta(seconds=301))])
    await log.sessions.append(new, 0, [opened(), placed(ME), closed(at=now())])

    async def is_deleted() -> bool:
        return set((await log.sessions.all()).lengths) == {new}

    await lead_until(log, is_deleted)


async def test_a_session_that_cannot_be_read_is_left_alone(log: InlineLog) -> None:
    broken, cell = new_session_id(), new_id()
    await log.sessions.append(broken, 0, [opened(), opened()])
    await log.append(cell, 0, [submitted(pinned=GONE, session=broken)])
    due = new_session_id()
    await log.sessions.append(due, 0, [opened(), placed(GONE)])

    async def is_closed() -> bool:
        return not (await session_of(log, due)).is_open

    await lead_until(log, is_closed)
    assert len(await log.read(cell)) == 1
    assert len(await log.sessions.read(broken)) == 2
