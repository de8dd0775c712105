"""Test waiting for the execution that an idempotency key names: the event log wakes the waiter, no clock does."""

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from pyexec.ports import IdempotencyKey
from pyexec.services.active_runs import ActiveRuns
from pyexec.services.event_log import CorruptLogReporter
from pyexec.services.executions import Executions
from pyexec.services.idempotency import key_hash
from pyexec.services.output_store import OutputMemory
from tests.events import claimed, submitted
from tests.services.failing_blobs import FailingBlobs
from tests.services.world import InlineLog


class CountingLog(InlineLog):
    """Counts the lookups of keys, and the lookups at the same time."""

    lookups = 0
    concurrent = 0

    async def find_by_key(self, key_hash: str) -> tuple[str, str] | None:
        self.lookups += 1
        self.concurrent += 1
        assert self.concurrent == 1
        await anyio.lowlevel.checkpoint()
        self.concurrent -= 1
        return await super().find_by_key(key_hash)


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[CountingLog]:
    log = CountingLog.at(tmp_path)
    yield log
    await log.close()


async def test_new_executions_wake_those_who_wait_for_a_key(log: CountingLog) -> None:
    executions = Executions(
        log=log,
        blobs=FailingBlobs(),
        active_runs=ActiveRuns(),
        peers=None,
        corrupt_logs=CorruptLogReporter(),
        memory=OutputMemory(output_bytes_max=1),
    )
    found: list[str] = []

    async def wait() -> None:
        found.append(await executions.wait_for_key("key", "tenant"))

    await log.append("exe_0", 0, [submitted()])
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        assert (found, log.lookups) == ([], 3)
        await log.append("exe_0", 1, [claimed()])
        await anyio.wait_all_tasks_blocked()
        assert log.lookups == 3  # no new execution
        await log.append("exe_1", 0, [submitted()])
        await anyio.wait_all_tasks_blocked()
        assert (found, log.lookups) == ([], 6)
        key = IdempotencyKey(key_hash=key_hash("key", "tenant"), fingerprint="f")
        with anyio.fail_after(5):
            await log.append("exe_2", 0, [submitted()], key=key)
            while len(found) < 3:
                await anyio.wait_all_tasks_blocked()
    assert found == ["exe_2"] * 3
