"""The embedded log and the file blobs only: lock, rebuild, corrupt files, leftovers of a crash."""

import asyncio
import contextlib
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest
from anyio import fail_after, move_on_after, wait_all_tasks_blocked
from attrs import evolve

from pyexec.adapters.blobs.file_store import FileBlobs
from pyexec.adapters.sqlite.log import FILE_NAME, REBUILD_BATCH, EmbeddedLog
from pyexec.errors import Conflict, CorruptLog, SettingsError, Unavailable
from tests.contract.test_blobs import SourceBroke, content, stream
from tests.contract.test_durability import ROOT
from tests.contract.test_index import WORDS
from tests.events import claimed, killed, new_id, running, submitted


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[EmbeddedLog]:
    async with await EmbeddedLog.open(tmp_path) as log:
        yield log


async def test_a_second_open_names_the_owner_of_the_lock(log: EmbeddedLog, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as refused:
        await EmbeddedLog.open(tmp_path)
    assert str(tmp_path) in str(refused.value)
    assert str(os.getpid()) in str(refused.value)


async def test_a_second_process_names_the_owner_of_the_lock(log: EmbeddedLog, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.contract.appender", "embedded", str(tmp_path)]
    second = await anyio.run_process(command, cwd=ROOT, check=False, stderr=subprocess.PIPE)
    assert second.returncode == 1
    assert f"SettingsError: PYEXEC_DATA_DIR is '{tmp_path}', which is locked by process {os.getpid()}" in (
        second.stderr.decode()
    )


async def test_a_closed_log_unlocks_the_directory_and_keeps_its_events(tmp_path: Path) -> None:
    execution, events = new_id(), [submitted(), claimed()]
    async with await EmbeddedLog.open(tmp_path) as log:
        await log.append(execution, 0, events)
        deployment = log.deployment
    async with await EmbeddedLog.open(tmp_path) as log:
        assert list(await log.read(execution)) == events
        assert log.deployment == deployment


async def test_each_directory_has_its_own_deployment_id(tmp_path: Path) -> None:
    async with await EmbeddedLog.open(tmp_path / "a") as a, await EmbeddedLog.open(tmp_path / "b") as b:
        assert a.deployment != b.deployment


async def test_an_invalid_directory_is_a_settings_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="PYEXEC_DATA_DIR"):
        await EmbeddedLog.open(tmp_path / "file")


async def test_a_new_data_directory_is_private(tmp_path: Path) -> None:
    """Only the server's user can read the directory, because it holds input and output of programs."""
    async with await EmbeddedLog.open(tmp_path / "new"):
        assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


async def test_a_closed_log_is_unavailable(tmp_path: Path) -> None:
    log = await EmbeddedLog.open(tmp_path)
    await log.close()
    with pytest.raises(Unavailable):
        await log.check()


async def test_the_fence_rejects_the_owner_of_the_directory(tmp_path: Path) -> None:
    async with await EmbeddedLog.open(tmp_path, "rep_me") as log:
        execution = new_id()
        await log.append(execution, 0, [submitted(), claimed("rep_me")])
        with pytest.raises(Conflict):
            await log.append(execution, 2, [killed()], fence="rep_me")
        await log.append(execution, 2, [killed()], fence="rep_dead")


def index_of(directory: Path) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(directory / FILE_NAME)) as db:
        return db.execute("SELECT * FROM executions ORDER BY id").fetchall()


def change(directory: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(directory / FILE_NAME)) as db, db:
        db.execute(statement)


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


@pytest.mark.parametrize("content", [b"no database at all" * 100, b"SQLite format 3\0" + b"\xff" * 4096])
async def test_a_corrupt_file_is_a_corrupt_log(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(CorruptLog) as refused:
        await EmbeddedLog.open(tmp_path)
    assert isinstance(refused.value.__cause__, sqlite3.DatabaseError)
    (tmp_path / FILE_NAME).unlink()
    async with await EmbeddedLog.open(tmp_path) as log:
        await log.check()


async def test_a_file_of_another_version_is_rejected(tmp_path: Path) -> None:
    async with await EmbeddedLog.open(tmp_path):
        pass
    change(tmp_path, "PRAGMA user_version = 99")
    with pytest.raises(CorruptLog, match="version 99"):
        await EmbeddedLog.open(tmp_path)


async def test_a_full_disk_is_unavailable_and_rolls_back(log: EmbeddedLog, tmp_path: Path) -> None:
    """A limit on the pages of the file causes the same error as a full disk."""
    execution = new_id()
    await log.append(execution, 0, [submitted()])
    await log._thread.run(lambda store: store._db.execute("PRAGMA max_page_count = 1").fetchall())

    async def fill() -> None:
        for _ in range(1000):
            await log.append(new_id(), 0, [submitted(), killed()])

    with pytest.raises(Unavailable, match="full") as refused:
        await fill()
    assert isinstance(refused.value.__cause__, sqlite3.OperationalError)
    await log._thread.run(lambda store: store._db.execute("PRAGMA max_page_count = 1000000").fetchall())
    await log.append(execution, 1, [killed()])
    kept = index_of(tmp_path)
    await log.rebuild_index()
    assert index_of(tmp_path) == kept


async def test_a_file_locked_by_another_program_is_unavailable(log: EmbeddedLog, tmp_path: Path) -> None:
    await log._thread.run(lambda store: store._db.execute("PRAGMA busy_timeout = 10").fetchall())
    with contextlib.closing(sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)) as stranger:
        stranger.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="locked"):
            await log.append(new_id(), 0, [submitted()])
        stranger.execute("ROLLBACK")
    await log.append(new_id(), 0, [submitted()])


async def test_cancelled_waiters_are_removed(log: EmbeddedLog) -> None:
    async with anyio.create_task_group() as waiters:
        for number in range(50):
            waiters.start_soon(log.wait, new_id(), 0, name=f"waiter {number}")
        await wait_all_tasks_blocked()
        assert len(log._waiters) == 50
        waiters.cancel_scope.cancel()
    assert log._waiters == {}


async def test_an_append_cancelled_by_asyncio_wakes_waiters(log: EmbeddedLog) -> None:
    for turns in range(12):
        execution, events = new_id(), [submitted(), claimed(), running()]
        async with anyio.create_task_group() as watchers:
            watchers.start_soon(log.wait, execution, 2, name="watcher")
            await wait_all_tasks_blocked()
            appending = asyncio.ensure_future(log.append(execution, 0, events))
            for _ in range(turns):
                await asyncio.sleep(0)
            appending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await appending
            happened = list(await log.read(execution))
            assert happened in ([], events)
            if happened:
                with fail_after(20):
                    await log.wait(execution, 2)
            else:
                watchers.cancel_scope.cancel()


async def test_waiters_send_no_queries(log: EmbeddedLog) -> None:
    statements: list[str] = []
    await log._thread.run(lambda store: store._db.set_trace_callback(statements.append))
    version = (await log.open_executions()).version
    async with anyio.create_task_group() as waiters:
        waiters.start_soon(log.wait, new_id(), 0, name="waiter")
        waiters.start_soon(log.open_executions, version, name="reconciler")
        await wait_all_tasks_blocked()
        with move_on_after(0.1):
            await anyio.sleep_forever()
        before = len(statements)
        with move_on_after(0.5):
            await anyio.sleep_forever()
        assert len(statements) == before
        waiters.cancel_scope.cancel()


def contents(directory: Path) -> list[bytes]:
    return [file.read_bytes() for file in directory.iterdir()]


async def test_a_put_that_fails_leaves_no_file(tmp_path: Path) -> None:
    async def breaking() -> AsyncIterator[bytes]:
        yield b"x" * 100_000
        raise SourceBroke

    blobs = await FileBlobs.open(tmp_path)
    with pytest.raises(SourceBroke):
        await blobs.put(f"{new_id()}/payload", breaking())
    assert contents(tmp_path) == []


async def test_partial_files_of_a_crash_are_deleted_at_open(tmp_path: Path) -> None:
    script = """
import os, signal, sys, anyio, pathlib
from pyexec.adapters.blobs.file_store import FileBlobs
async def chunks():
    yield b"x" * 100_000
    os.kill(os.getpid(), signal.SIGKILL)
async def put():
    await (await FileBlobs.open(pathlib.Path(sys.argv[1]))).put("exe/payload", chunks())
anyio.run(put)
"""
    blobs = await FileBlobs.open(tmp_path)
    await blobs.put("exe/output", stream(b"whole"))
    await anyio.run_process([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, check=False)
    assert len(contents(tmp_path)) == 2
    await FileBlobs.open(tmp_path)
    assert contents(tmp_path) == [b"whole"]
    assert b"".join([chunk async for chunk in blobs.read("exe/output")]) == b"whole"


async def test_a_write_failure_is_unavailable(tmp_path: Path) -> None:
    blobs = await FileBlobs.open(tmp_path / "blobs")
    (tmp_path / "blobs").rmdir()
    with pytest.raises(Unavailable):
        await blobs.put("exe/payload", stream(b"x"))


async def test_orphaned_blobs_are_swept_after_a_day(tmp_path: Path) -> None:
    blobs = await FileBlobs.open(tmp_path / "blobs")
    forgotten, fresh, accepted = (f"{new_id()}/payload" for _ in range(3))
    for name in (forgotten, fresh, accepted):
        await blobs.put(name, stream(b"x"))
    two_days_ago = time.time() - 2 * 86400
    for name in (forgotten, accepted):
        os.utime(tmp_path / "blobs" / name.replace("/", "+"), (two_days_ago, two_days_ago))

    async def exists(execution_id: str) -> bool:
        return accepted.startswith(execution_id)

    await blobs.sweep(frozenset(), exists)
    assert await content(blobs, fresh) == b"x"
    assert await content(blobs, accepted) == b"x"
    with pytest.raises(Unavailable):
        await content(blobs, forgotten)


def rows_of(directory: Path, table: str) -> int:
    with contextlib.closing(sqlite3.connect(directory / FILE_NAME)) as db:
        count: int = db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        return count


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
