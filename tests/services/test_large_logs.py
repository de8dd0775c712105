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


READ_SECONDS = 0.01


class SlowLog:
    """Records how many reads of large logs there are at the same time, and when each begins and ends."""

    def __init__(self) -> None:
        self.reading, self.most = 0, 0
        self.begun: list[float] = []
        self.ended: list[float] = []

    async def read(self, execution_id: str) -> Sequence[Event]:
        event = submitted()
        if execution_id == SMALL:
            return [event]
        self.reading += 1
        self.most = max(self.most, self.reading)
        self.begun.append(anyio.current_time())
        await anyio.sleep(READ_SECONDS)
        self.ended.append(anyio.current_time())
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
    pauses = [begun - ended for ended, begun in zip(log.ended[1:], log.begun[2:], strict=False)]
    assert len(pauses) == 4
    assert min(pauses) > 0.9 * READ_SECONDS


async def test_without_large_logs_reads_do_not_wait_for_each_other() -> None:
    log = SlowLog()
    reader = LogReader(Mock(read=log.read))
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(reader.read, LARGE, Caller())
    assert log.most == 5
