"""Test that both versions of control groups are read alike, with files from a container of known limits."""

import shutil
from pathlib import Path

import pytest

from pyexec.guest import limits_probe as probe
from pyexec.guest import memory
from pyexec.guest.memory import Memory
from pyexec.guest.wire import TMP, WORK

RECORDED = Path(__file__).parent / "cgroups"
MEBIBYTE = 1024 * 1024
ANONYMOUS, SHARED = 25542656, 8 * MEBIBYTE


@pytest.mark.parametrize(
    ("version", "share"),
    [("v1", {"cpu_shares": 512, "cpu_weight": None}), ("v2", {"cpu_shares": None, "cpu_weight": 20})],
)
def test_the_probe_reads_limits(version: str, share: dict[str, int | None]) -> None:
    assert probe.control_group(str(RECORDED / version)) == {"swap_bytes": 0, "cpus": 0.5, **share}


def test_the_probe_reads_no_limit_as_the_most_there_is(tmp_path: Path) -> None:
    for name, text in {"memory.swap.max": "max", "cpu.max": "max 100000", "cpu.weight": "100"}.items():
        (tmp_path / name).write_text(f"{text}\n")
    found = probe.control_group(str(tmp_path))
    assert found["swap_bytes"] == probe.UNLIMITED
    assert found["cpus"] > 1e9


def test_the_probe_reads_nothing_where_there_is_nothing(tmp_path: Path) -> None:
    assert set(probe.control_group(str(tmp_path)).values()) == {None}


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_supervisor_counts_anonymous_and_shared_memory_but_no_files(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(RECORDED / version, tmp_path, dirs_exist_ok=True)
    stored = {WORK: 3 * MEBIBYTE, TMP: MEBIBYTE}
    monkeypatch.setattr(memory, "tmpfs_bytes", stored.__getitem__)
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
