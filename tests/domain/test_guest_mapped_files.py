"""Test how the supervisor estimates the number of files that are open only because they are mapped."""

import math
import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pyexec.guest import mapped_files
from pyexec.guest.mapped_files import FREE_FILES, FREE_MAPPINGS, MappedFiles, count_mappings, mappings_of

OWN = f"/proc/{os.getpid()}"


@pytest.mark.parametrize("name", ["file", "00000000 00:00 0 r-xp 00000000 00:00 0 "])
def test_mapped_files_of_a_process_are_counted(tmp_path: Path, name: str) -> None:
    """The kernel shows the name of a file as it is, spaces included."""
    path = tmp_path / name
    path.write_bytes(bytes(mmap.PAGESIZE))
    mappings: list[mmap.mmap] = []
    for _ in range(2 * FREE_MAPPINGS):
        with path.open("rb") as file:
            mappings.append(mmap.mmap(file.fileno(), mmap.PAGESIZE, prot=mmap.PROT_READ))
    counted = mappings_of(OWN, math.inf)
    for mapping in mappings:
        mapping.close()
    assert counted - mappings_of(OWN, math.inf) >= FREE_MAPPINGS


HOLDS = f"""
import ctypes, mmap, sys, threading
held = []
for _ in range({2 * FREE_MAPPINGS}):
    with open(sys.executable, 'rb') as file:
        held.append(mmap.mmap(file.fileno(), mmap.PAGESIZE, prot=mmap.PROT_READ))
def wait():
    while ') Z ' not in open('/proc/self/stat').read():
        pass
    print(flush=True)
    sys.stdin.read()
threading.Thread(target=wait).start()
ctypes.CDLL(None).pthread_exit(None)
"""


def test_a_first_thread_that_has_ended_hides_no_mapped_files() -> None:
    command = [sys.executable, "-c", HOLDS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert mappings_of(f"/proc/{process.pid}", math.inf) >= FREE_MAPPINGS
        process.kill()


def test_mappings_without_a_file_are_free() -> None:
    before = mappings_of(OWN, math.inf)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    mappings = [
        mmap.mmap(-1, mmap.PAGESIZE, flags, prot=1 + number % 2) for number in range(2 * FREE_MAPPINGS)
    ]
    counted = mappings_of(OWN, math.inf)
    for mapping in mappings:
        mapping.close()
    assert counted == before


@pytest.mark.parametrize("error", [PermissionError, TimeoutError])
def test_a_process_that_cannot_be_read_may_have_mapped_any_number(
    monkeypatch: pytest.MonkeyPatch, error: type[OSError]
) -> None:
    def refuse(process: str, _deadline: float) -> int:
        raise error(process)

    monkeypatch.setattr(mapped_files, "mappings_of", refuse)
    assert count_mappings(10**9) == 10**9


def test_counting_stops_after_its_time() -> None:
    with pytest.raises(TimeoutError):
        mappings_of(OWN, -1.0)


def test_mappings_count_only_if_the_machine_has_opened_many_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = tmp_path / "file-nr"
    counter.write_text("5000\t0\t2466177\n")
    files = MappedFiles(str(counter))
    monkeypatch.setattr(mapped_files, "count_mappings", lambda maximum: maximum // 2)

    def used(number: int) -> int:
        counter.write_text(f"{number}\t0\t2466177\n")
        files.check_at = 0.0
        return files.used()

    assert used(5000 + FREE_FILES) == 0
    assert used(4000) == 0
    assert used(104_000) == 50_000
    counter.write_text("900000\t0\t2466177\n")
    assert files.used() == 50_000, "it was read less than a second ago"
    files.reset()
    assert files.used() == 0


def test_a_runtime_that_does_not_show_open_files_counts_none(tmp_path: Path) -> None:
    files = MappedFiles(str(tmp_path / "missing"))
    files.check_at = 0.0
    assert files.used() == 0
