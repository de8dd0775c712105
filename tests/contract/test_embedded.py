"""The embedded log only: lock, corrupt files, failures, waiters."""

import asyncio
import contextlib
import errno
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from anyio import fail_after, move_on_after, wait_all_tasks_blocked

from pyexec.adapters.sqlite.log import FILE_NAME, EmbeddedLog
from pyexec.errors import Conflict, CorruptLog, SettingsError, Unavailable
from tests.contract.sqlite_file import change, index_of
from tests.events import claimed, killed, new_id, running, submitted
from tests.support.paths import ROOT


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


async def test_a_copy_of_a_directory_has_an_id_of_its_own(tmp_path: Path) -> None:
    async with await EmbeddedLog.open(tmp_path / "a") as original:
        assert original.copy_id is None
        shutil.copytree(tmp_path / "a", tmp_path / "b")
    async with await EmbeddedLog.open(tmp_path / "b") as log:
        assert log.copy_id is not None
        assert log.deployment == original.deployment
        first = log.copy_id
    (tmp_path / "b").rename(tmp_path / "c")
    async with await EmbeddedLog.open(tmp_path / "c") as log:
        assert log.copy_id == first
    async with await EmbeddedLog.open(tmp_path / "a") as log:
        assert log.copy_id is None


async def test_checks_of_a_hanging_log_can_be_cancelled(log: EmbeddedLog) -> None:
    answers = threading.Event()
    log._thread.start(lambda _: answers.wait())
    try:
        for _ in range(2):
            with move_on_after(0.05) as scope:
                await log.check()
            assert scope.cancelled_caught
    finally:
        answers.set()
    with fail_after(20):
        await log.check()


async def test_an_invalid_directory_is_a_settings_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="PYEXEC_DATA_DIR"):
        await EmbeddedLog.open(tmp_path / "file")


async def test_a_full_disk_is_a_settings_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(SettingsError, match=r"PYEXEC_DATA_DIR .*\(No space left on device\)"):
        await EmbeddedLog.open(tmp_path)
    monkeypatch.undo()
    async with await EmbeddedLog.open(tmp_path) as log:
        await log.check()


@pytest.mark.parametrize("content", [b"", b"\xff\n", b"0123456789abcdef, and more\n"])
async def test_a_damaged_deployment_id_is_a_settings_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "deployment").write_bytes(content)
    with pytest.raises(SettingsError, match=r"deployment in PYEXEC_DATA_DIR holds .* not a deployment id"):
        await EmbeddedLog.open(tmp_path)


async def test_a_locked_file_is_unavailable(tmp_path: Path) -> None:
    """The server could still read it, but not append."""
    async with await EmbeddedLog.open(tmp_path) as log:
        await log.check()
        with sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(Unavailable, match="locked"), fail_after(20):
                await log.check()
            other.execute("ROLLBACK")
        other.close()
        await log.check()


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_file_that_an_operator_removes_or_replaces_is_unavailable(
    tmp_path: Path, replaced: bool
) -> None:
    async with await EmbeddedLog.open(tmp_path) as log:
        (tmp_path / FILE_NAME).rename(tmp_path / "moved")
        if replaced:
            (tmp_path / FILE_NAME).write_bytes((tmp_path / "moved").read_bytes())
        with pytest.raises(Unavailable, match="removed or replaced"):
            await log.check()
        (tmp_path / "moved").rename(tmp_path / FILE_NAME)
        await log.check()


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
