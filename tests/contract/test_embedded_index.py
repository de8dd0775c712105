"""The index of the embedded log only: rebuild, corrupt logs, deletion of old executions."""

import contextlib
import random
import sqlite3
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import AsyncMock

import pytest
from anyio import create_task_group, fail_after
from attrs import evolve

from pyexec.adapters.sqlite.log import FILE_NAME, REBUILD_BATCH, EmbeddedLog
from pyexec.errors import Conflict, CorruptLog
from pyexec.services.event_log import CorruptLogReporter
from pyexec.services.retention import Retention
from tests.contract.sqlite_file import change, index_of, rows_of
from tests.contract.test_index import WORDS
from tests.events import claimed, killed, new_id, running, submitted
from tests.support.api import pause


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[EmbeddedLog]:
    async with await EmbeddedLog.open(tmp_path) as log:
        yield log


async def test_the_index_is_rebuilt_from_the_events(log: EmbeddedLog, tmp_path: Path) -> None:
    for word in random.choices(WORDS, k=50):
        await log.append(new_id(), 0, word)
    for word in WORDS[-3:]:
        execution = new_id()
        await log.append(execution, 0, word)
        await log.retire(execution)
    kept = index_of(tmp_path)
    assert len(kept) == 50
    change(tmp_path, "DELETE FROM executions WHERE abs(random()) % 2")
    change(tmp_path, "UPDATE executions SET length = 99, status = 'running', ended_at = 'never'")
    assert index_of(tmp_path) != kept
    await log.rebuild_index()
    assert index_of(tmp_path) == kept


async def test_a_missing_event_is_a_corrupt_log(log: EmbeddedLog, tmp_path: Path) -> None:
    execution = new_id()
    await log.append(execution, 0, [submitted(), claimed(), running()])
    change(tmp_path, "DELETE FROM events WHERE seq = 2")
    with pytest.raises(CorruptLog):
        await log.read(execution)


async def test_an_unreadable_event_is_a_corrupt_log_and_keeps_its_index_entry(
    log: EmbeddedLog, tmp_path: Path
) -> None:
    execution = new_id()
    await log.append(execution, 0, [submitted()])
    kept = index_of(tmp_path)
    change(tmp_path, "UPDATE events SET event = '{}'")
    with pytest.raises(CorruptLog):
        await log.read(execution)
    assert (await log.rebuild_index()).keys() == {execution}
    assert index_of(tmp_path) == kept


async def test_a_corrupt_log_does_not_stop_the_rebuild(log: EmbeddedLog, tmp_path: Path) -> None:
    executions = [new_id() for _ in range(2 * REBUILD_BATCH + 1)]
    for execution in executions:
        await log.append(execution, 0, random.choice(WORDS))
    bad = executions[REBUILD_BATCH]
    change(tmp_path, f"UPDATE events SET event = '{{}}' WHERE execution_id = '{bad}'")
    kept = index_of(tmp_path)
    change(tmp_path, f"UPDATE executions SET length = 99, status = 'wrong' WHERE id <> '{bad}'")
    assert (await log.rebuild_index()).keys() == {bad}
    assert index_of(tmp_path) == kept


async def test_old_executions_leave_no_row_behind(log: EmbeddedLog, tmp_path: Path) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=2)
    for number in range(20):
        execution = new_id(long_ago + timedelta(seconds=number))
        await log.append(execution, 0, [submitted(), killed()])
        await log.retire(execution)
    recent = new_id()
    await log.append(recent, 0, [submitted(), killed()])
    await log.retire(recent)
    assert {table: rows_of(tmp_path, table) for table in ("events", "keys", "executions", "retired")} == {
        "events": 0,
        "keys": 0,
        "executions": 0,
        "retired": 1,
    }
    with pytest.raises(Conflict):
        await log.append(recent, 0, [submitted()])


def _files_with(directory: Path, text: bytes) -> list[str]:
    return [file.name for file in directory.iterdir() if file.is_file() and text in file.read_bytes()]


async def append_secret(log: EmbeddedLog) -> str:
    """Append an ended execution whose variables and input contain the word SECRET."""
    execution, event = new_id(), submitted()
    secret = evolve(event, spec=evolve(event.spec, stdin="SECRET" * 2000, env_vars=("A=SECRET",)))
    await log.append(execution, 0, [secret, killed()])
    return execution


async def test_deleted_executions_are_erased_from_the_disk(log: EmbeddedLog, tmp_path: Path) -> None:
    """Their variables and their input may be secret."""
    await append_secret(log)
    assert _files_with(tmp_path, b"SECRET")
    reporter = CorruptLogReporter()
    retention = Retention(log=log, blobs=AsyncMock(), corrupt_logs=reporter, ttl_seconds=1, webhook_seconds=1)
    async with create_task_group() as tasks:
        tasks.start_soon(retention.retire_ended)
        with fail_after(10):
            while _files_with(tmp_path, b"SECRET"):
                await pause()
        tasks.cancel_scope.cancel()


async def test_erasing_does_not_wait_for_a_reader_of_the_file(log: EmbeddedLog, tmp_path: Path) -> None:
    await log.retire(await append_secret(log))
    with contextlib.closing(sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)) as backup:
        backup.execute("BEGIN")
        backup.execute("SELECT * FROM events").fetchall()
        with fail_after(1):
            await log.erase_retired()
        assert _files_with(tmp_path, b"SECRET")
    await log.erase_retired()
    assert _files_with(tmp_path, b"SECRET") == []


async def test_the_file_does_not_grow_with_the_history(log: EmbeddedLog, tmp_path: Path) -> None:
    def pages() -> int:
        with contextlib.closing(sqlite3.connect(tmp_path / FILE_NAME)) as db:
            count: int = db.execute("PRAGMA page_count").fetchone()[0]
            return count

    sizes = []
    start = datetime.now(UTC) - timedelta(days=30)
    for day in range(4):
        for number in range(300):
            execution = new_id(start + timedelta(days=day, seconds=number))
            await log.append(execution, 0, [submitted(), killed()])
            await log.retire(execution)
        sizes.append(pages())
    assert sizes[-1] == sizes[0]


async def test_a_waiter_for_an_execution_whose_row_is_purged_wakes(log: EmbeddedLog) -> None:
    execution = new_id(datetime.now(UTC) - timedelta(days=2))
    await log.append(execution, 0, [submitted(), killed()])
    await log.retire(execution)
    with fail_after(5):
        await log.wait(execution, 2)


async def test_outstanding_webhooks_are_known_after_a_restart(tmp_path: Path) -> None:
    execution, event = new_id(), submitted()
    url = "https://hooks.example.com/x"
    async with await EmbeddedLog.open(tmp_path / "log") as log:
        await log.append(execution, 0, [evolve(event, spec=evolve(event.spec, webhook_url=url))])
    async with await EmbeddedLog.open(tmp_path / "log") as log:
        assert (await log.webhooks()).receivers == {execution: "https://hooks.example.com"}
