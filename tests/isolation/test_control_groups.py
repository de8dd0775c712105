"""Test that both versions of control groups are read alike, with files from a container of known limits."""

import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from pyexec.guest import limits_probe as probe
from pyexec.guest import usage
from pyexec.guest.processes import REFUSALS_PER_SECOND, ProcessLimit
from pyexec.guest.usage import CpuTime, Memory

RECORDED = Path(__file__).parent / "cgroups"
MEBIBYTE = 1024 * 1024
ANONYMOUS, SHARED = 25542656, 8 * MEBIBYTE


@pytest.mark.parametrize(
    ("version", "share"),
    [("v1", {"cpu_shares": 512, "cpu_weight": None}), ("v2", {"cpu_shares": None, "cpu_weight": 20})],
)
def test_the_probe_reads_limits(version: str, share: dict[str, int | None]) -> None:
    assert probe.control_group(str(RECORDED / version)) == {"swap_bytes": 0, "cpus": 0.5, **share}


def test_the_probe_reads_max_as_unlimited(tmp_path: Path) -> None:
    for name, text in {"memory.swap.max": "max", "cpu.max": "max 100000", "cpu.weight": "100"}.items():
        (tmp_path / name).write_text(f"{text}\n")
    found = probe.control_group(str(tmp_path))
    assert found["swap_bytes"] == probe.UNLIMITED
    assert found["cpus"] > 1e9


def test_the_probe_reads_missing_files_as_none(tmp_path: Path) -> None:
    assert set(probe.control_group(str(tmp_path)).values()) == {None}


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_supervisor_counts_anonymous_and_shared_memory_but_no_files(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(RECORDED / version, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(usage, "file_content_bytes", lambda: 4 * MEBIBYTE)
    monkeypatch.setattr(usage, "Sockets", lambda: None)
    counted = Memory(f"{tmp_path}/")
    assert counted.charged() == ANONYMOUS + SHARED - 4 * MEBIBYTE
    counted.set_baseline()
    assert (counted.used(), counted.was_exhausted()) == (0, False)
    statistics = next(tmp_path.rglob("memory.stat"))
    statistics.write_text(statistics.read_text().replace(str(ANONYMOUS), str(ANONYMOUS + 5 * MEBIBYTE)))
    assert (counted.used(), counted.peak) == (5 * MEBIBYTE, 5 * MEBIBYTE)
    events = next(path for path in tmp_path.rglob("memory.*") if "oom_kill 0" in path.read_text())
    events.write_text(events.read_text().replace("oom_kill 0", "oom_kill 1"))
    assert counted.was_exhausted()


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_supervisor_counts_sockets(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Version 2 counts neither netlink and ICMP sockets nor errors of TCP."""
    monkeypatch.setattr(usage, "file_content_bytes", lambda: 0)
    monkeypatch.setattr(usage, "Sockets", lambda: SimpleNamespace(used=lambda: 3 * MEBIBYTE))
    counted = Memory(f"{RECORDED / version}/")
    counted.set_baseline()
    assert counted.used() == 3 * MEBIBYTE


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_supervisor_reads_processor_time_in_seconds(version: str, tmp_path: Path) -> None:
    shutil.copytree(RECORDED / version, tmp_path, dirs_exist_ok=True)
    counted = CpuTime(0, f"{tmp_path}/")
    assert counted.baseline == pytest.approx(3.214567 - time.process_time(), abs=0.05)
    counter = next(
        path for path in tmp_path.rglob("cpu*") if path.is_file() and "3214567" in path.read_text()
    )
    counter.write_text(counter.read_text().replace("3214567", "5214567"))
    assert counted.seconds() == pytest.approx(2, abs=0.05)


def test_a_group_without_a_limit_of_processes_reports_none(tmp_path: Path) -> None:
    (tmp_path / "pids.max").write_text("max\n")
    (tmp_path / "pids.events").write_text("max 12\n")
    limit = ProcessLimit(f"{tmp_path}/")
    assert (limit.refusals(), limit.reached(), limit.is_fork_bomb(now=0)) == (0, None, False)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_supervisor_sees_that_the_limit_of_processes_was_reached(version: str, tmp_path: Path) -> None:
    shutil.copytree(RECORDED / version, tmp_path, dirs_exist_ok=True)
    events = next(tmp_path.rglob("pids.events"))
    limit = ProcessLimit(f"{tmp_path}/")
    assert (limit.refusals(), limit.reached()) == (12, None)
    events.write_text("max 13\n")
    assert (limit.reached(), limit.is_fork_bomb(now=5)) == (20, False)
    for now in (5.9, 6, 6.9):
        events.write_text(f"max {13 + int((now - 5) * REFUSALS_PER_SECOND)}\n")
        assert not limit.is_fork_bomb(now)
    events.write_text(f"max {14 + 2 * REFUSALS_PER_SECOND}\n")
    assert limit.is_fork_bomb(now=6.95)


def test_without_control_groups_no_limit_of_processes_was_reached(tmp_path: Path) -> None:
    limit = ProcessLimit(f"{tmp_path}/")
    assert (limit.reached(), limit.is_fork_bomb(now=0)) == (None, False)
