"""Test how the supervisor estimates the memory of file locks."""

import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from pyexec.guest import estimate, locks, setup_init
from pyexec.guest.estimate import PF_EXITING
from pyexec.guest.locks import FREE_BYTES, FileLocks, count_bytes

count_locks = partial(locks.count_locks, deadline=math.inf)

FILES, LOCKS_OF_FILE = 40, 50
HOLDS = f"""
import ctypes, fcntl, os, sys, threading
for _ in range({FILES}):
    file = os.memfd_create('locked')
    for number in range({LOCKS_OF_FILE}):
        fcntl.lockf(file, fcntl.LOCK_EX, 1, 2 * number)
print(flush=True)
if sys.argv[1] == 'thread':
    threading.Thread(target=sys.stdin.read).start()
    ctypes.CDLL(None).pthread_exit(None)
if sys.argv[1] == 'chain':
    def start_next():
        threading.Thread(target=start_next, daemon=True).start()
    start_next()
    ctypes.CDLL(None).pthread_exit(None)
sys.stdin.read()
"""


@contextmanager
def holder(kind: str) -> Iterator[int]:
    """Start a process that holds locks. A `thread` goes on after the first one; in a `chain`, each starts the next."""
    command = [sys.executable, "-c", HOLDS, kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.kill()


@pytest.mark.parametrize("kind", ["process", "thread"])
def test_locks_of_a_process_are_estimated_from_a_few_descriptors(kind: str) -> None:
    with holder(kind) as process:
        found = count_locks(f"/proc/{process}")
    assert 0.7 < found / (FILES * LOCKS_OF_FILE) < 1.3
    assert count_locks(f"/proc/{os.getpid()}") < found / 2


def test_threads_that_end_at_once_hide_no_locks() -> None:
    with holder("chain") as process:
        for _ in range(50):
            with suppress(PermissionError):
                assert count_locks(f"/proc/{process}") > 0.7 * FILES * LOCKS_OF_FILE


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a process whose first thread is a zombie; its second ends while it is read, and its third is gone."""
    listdir = os.listdir
    monkeypatch.setattr(locks.os, "listdir", lambda path: sorted(listdir(path)))
    write_thread(tmp_path, "1", "Z", 0)
    write_thread(tmp_path, "2", "R", PF_EXITING)
    write_descriptor(tmp_path, "2", "/work/file")
    (tmp_path / "task" / "2" / "fdinfo" / "0").symlink_to("gone")
    (tmp_path / "task" / "3").mkdir()
    return tmp_path


def write_thread(process: Path, thread: str, state: str, flags: int) -> None:
    directory = process / "task" / thread
    (directory / "fdinfo").mkdir(parents=True)
    (directory / "fd").mkdir()
    (directory / "stat").write_text(f"{thread} (a) name) {state} 1 1 1 0 -1 {flags} 0 0")


def write_descriptor(process: Path, thread: str, target: str) -> Path:
    """Make descriptor 0 of a thread lead to `target`. Return the path of its text."""
    directory = process / "task" / thread
    (directory / "fd" / "0").symlink_to(target)
    return directory / "fdinfo" / "0"


def test_a_thread_that_ends_is_followed_by_the_next_one(process: Path) -> None:
    assert count_locks(str(process)) == 0
    write_thread(process, "4", "S", 0x400000)
    write_descriptor(process, "4", "/work/file").write_text("pos:\t0\nlock:\t1: POSIX\nlock:\t2: POSIX\n")
    assert count_locks(str(process)) == 2


@pytest.mark.parametrize("kind", ["inotify", "[eventpoll]"])
def test_descriptors_with_watches_are_not_read(process: Path, kind: str) -> None:
    """Their text has a line for each watch, and takes long to read."""
    write_thread(process, "4", "S", 0x400000)
    write_descriptor(process, "4", f"anon_inode:{kind}").write_text("pos:\t0\nlock:\t1: POSIX\n")
    assert count_locks(str(process)) == 0


def test_a_process_that_takes_too_long_to_read_may_have_any_number_of_locks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with holder("process") as process:
        monkeypatch.setattr(locks.os, "listdir", partial(list_only, process, os.listdir))
        assert count_bytes(10**9) < 10**6
        monkeypatch.setattr(locks, "COUNT_SECONDS", 0)
        assert count_bytes(10**9) == 10**9


def list_only(process: int, listdir: Callable[[str], list[str]], path: str) -> list[str]:
    return [str(process)] if path == "/proc" else listdir(path)


def test_locks_are_counted_less_often_if_that_takes_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "meminfo", 500_000)
    counted = FileLocks(str(tmp_path / "meminfo"))
    write(tmp_path / "meminfo", 10**9)
    seconds = iter((0.0, 0.25))
    clock = SimpleNamespace(monotonic=lambda: 1000.0, thread_time=lambda: next(seconds))
    monkeypatch.setattr(estimate, "time", clock)
    monkeypatch.setattr(locks, "count_bytes", lambda _: 1)
    counted.check_at = 0.0
    assert counted.used() == counted.used() == 1
    assert counted.check_at == 1002.5


def test_a_process_whose_threads_always_end_may_have_any_number_of_locks(
    process: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listdir, threads = os.listdir, iter(range(5, 100))

    def list_new_thread(path: str) -> list[str]:
        return ["1", str(next(threads))] if path.endswith("/task") else listdir(path)

    monkeypatch.setattr(locks.os, "listdir", list_new_thread)
    with pytest.raises(PermissionError):
        count_locks(str(process))


def test_a_process_without_descriptors_has_no_locks(tmp_path: Path) -> None:
    write_thread(tmp_path, "1", "S", 0)
    assert count_locks(str(tmp_path)) == 0


def test_only_processes_that_run_can_hide_their_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    listdir = os.listdir

    def refuse(path: str) -> list[str]:
        if path.endswith("/fdinfo"):
            raise PermissionError(path)
        return listdir(path)

    monkeypatch.setattr(locks.os, "listdir", refuse)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        with pytest.raises(PermissionError):
            count_locks(f"/proc/{process.pid}")
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert count_locks(f"/proc/{process.pid}") == 0


def write(path: Path, kibibytes: int) -> None:
    path.write_text(f"MemTotal:       24684096 kB\nSUnreclaim:  {kibibytes:9} kB\nKernelStack: 1 kB\n")


def test_locks_count_only_if_the_memory_of_the_kernel_has_grown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meminfo = tmp_path / "meminfo"
    write(meminfo, 500_000)
    counted = FileLocks(str(meminfo))
    asked: list[int] = []

    def count(maximum: int) -> int:
        asked.append(maximum)
        return maximum // 2

    monkeypatch.setattr(locks, "count_bytes", count)

    def used(kibibytes: int) -> int:
        write(meminfo, kibibytes)
        counted.check_at = 0.0
        return counted.used()

    allowed = FREE_BYTES // 1024
    assert (used(500_000 + allowed), asked) == (0, [])
    assert used(400_000) == 0
    assert used(500_000) == 50_000 * 1024
    write(meminfo, 10**9)
    assert counted.used() == 50_000 * 1024, "it was read less than a second ago"
    assert asked == [100_000 * 1024]


def test_a_runtime_that_does_not_show_the_memory_of_the_kernel_counts_no_locks(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 1000 kB\n")
    counted = FileLocks(str(tmp_path / "meminfo"))
    counted.check_at = 0.0
    assert counted.used() == 0


@pytest.mark.parametrize(
    ("locks_bytes", "mapped_files", "sockets_bytes", "reason"),
    [
        (setup_init.LOCKS_BYTES_MAX + 1, 0, 0, "locks"),
        (0, setup_init.MAPPED_FILES_MAX + 1, 0, "files"),
        (0, 0, setup_init.SOCKETS_BYTES_MAX + 1, "sockets"),
    ],
)
def test_a_setup_with_too_many_locks_mapped_files_or_sockets_is_stopped(
    monkeypatch: pytest.MonkeyPatch, locks_bytes: int, mapped_files: int, sockets_bytes: int, reason: str
) -> None:
    reports: list[dict[str, object]] = []
    stopped: list[bool] = []
    monkeypatch.setattr(setup_init, "FileLocks", lambda: SimpleNamespace(used=lambda: locks_bytes))
    monkeypatch.setattr(setup_init, "MappedFiles", lambda: SimpleNamespace(used=lambda: mapped_files))
    monkeypatch.setattr(setup_init, "Sockets", lambda: SimpleNamespace(used=lambda: sockets_bytes))
    monkeypatch.setattr(setup_init, "stop_processes", lambda: stopped.append(True))
    monkeypatch.setattr(setup_init, "report", lambda **facts: reports.append(facts))
    monkeypatch.setattr(setup_init, "select", SimpleNamespace(select=lambda *_: ([], [], [])))
    monkeypatch.setattr(setup_init, "os", SimpleNamespace(read=lambda *_: b"", path=os.path))
    disk = SimpleNamespace(check=lambda: None, stored=7)
    assert not setup_init.wait_for_end(disk)
    assert (stopped, reports) == ([True], [{"disk_bytes": 7, "stopped": reason}])


def test_a_process_that_hides_its_descriptors_may_have_any_number_of_locks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(process: str, _deadline: float) -> int:
        raise PermissionError(process)

    monkeypatch.setattr(locks, "count_locks", refuse)
    assert count_bytes(10**9) == 10**9
