"""Test that a tenant whose executions have much input delays no other tenant by reading them."""

from collections.abc import Sequence
from unittest.mock import Mock

import anyio
import anyio.lowlevel
from attrs import evolve

from pyexec.domain.events import Event
from pyexec.ports import Caller
from pyexec.services.large_logs import LARGE_CHARACTERS, LogReader
from tests.events import submitted

LARGE, SMALL = "large", "small"


class SlowLog:
    """Records how many reads of large logs there are at the same time."""

    def __init__(self) -> None:
        self.reading, self.most = 0, 0

    async def read(self, execution_id: str) -> Sequence[Event]:
        event = submitted()
        if execution_id == SMALL:
            return [event]
        self.reading += 1
        self.most = max(self.most, self.reading)
        await anyio.sleep(0.01)
        self.reading -= 1
        return [evolve(event, spec=evolve(event.spec, stdin="x" * (LARGE_CHARACTERS + 1)))]


async def test_large_logs_of_a_tenant_are_read_one_at_a_time() -> None:
    log = SlowLog()
    reader = LogReader(Mock(read=log.read))
    acme, beta = Caller(tenant="acme"), Caller(tenant="beta")
    await reader.read(LARGE, acme)
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(reader.read, LARGE, acme)
        while not log.reading:
            await anyio.lowlevel.checkpoint()
        assert len(await reader.read(SMALL, beta)) == 1
        assert log.reading == 1
    assert log.most == 1


async def test_without_large_logs_reads_do_not_wait_for_each_other() -> None:
    log = SlowLog()
    reader = LogReader(Mock(read=log.read))
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(reader.read, LARGE, Caller())
    assert log.most == 5
