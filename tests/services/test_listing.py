"""Test that lists of executions read only what has changed: the log of an execution may have megabytes of input."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from pyexec.domain.events import Event
from pyexec.ports import Caller
from pyexec.services.event_log import CorruptLogReporter
from pyexec.services.listing import Listing
from tests.events import claimed, killed, new_id, running, submitted
from tests.services.world import InlineLog


class CountingLog(InlineLog):
    """Records what is read."""

    reads: list[str]

    async def read(self, execution_id: str, after: int = 0) -> Sequence[Event]:
        self.reads.append(execution_id)
        return await super().read(execution_id, after)


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[CountingLog]:
    log = CountingLog.at(tmp_path)
    log.reads = []
    yield log
    await log.close()


async def test_only_executions_that_have_changed_are_read_again(log: CountingLog) -> None:
    first, second = new_id(), new_id()
    await log.append(first, 0, [submitted()])
    await log.append(second, 0, [submitted(), claimed()])
    listing, caller = Listing(log, CorruptLogReporter()), Caller()

    async def listed() -> list[tuple[str, str]]:
        log.reads.clear()
        summaries, _ = await listing.page(None, 50, None, caller)
        return [(each.execution_id, str(each.status)) for each in summaries]

    assert await listed() == [(second, "pending"), (first, "pending")]
    assert log.reads == [second, first]
    await log.append(second, 2, [running()])
    assert await listed() == [(second, "running"), (first, "pending")]
    assert log.reads == [second]
    await log.append(second, 3, [killed()])
    for reads in ([second], []):
        assert await listed() == [(second, "killed"), (first, "pending")]
        assert log.reads == reads
