"""Test how the supervisor measures processor time, with files in place of control groups."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from pyexec.guest.usage import CpuTime, process_seconds

BUSY = "import sys, time\nwhile time.process_time() < 0.2: pass\nprint(flush=True)\nsys.stdin.read()"


def write(root: Path, version: int, seconds: float) -> None:
    path = root / ("cpuacct/cpuacct.usage" if version == 1 else "cpu.stat")
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        str(round(seconds * 1e9)) if version == 1 else f"usage_usec {round(seconds * 1e6)}\nuser_usec 1\n"
    )


@pytest.mark.parametrize("version", [1, 2])
def test_the_control_group_counts_without_the_supervisor(tmp_path: Path, version: int) -> None:
    write(tmp_path, version, 100)
    measured = CpuTime(0, f"{tmp_path}/")
    own = time.process_time()
    while time.process_time() < own + 0.05:
        pass
    write(tmp_path, version, 103)
    assert 2.8 < measured.seconds() < 2.951


def test_time_before_the_start_of_the_run_counts_only_for_its_interpreter(tmp_path: Path) -> None:
    write(tmp_path, 2, 100)
    with subprocess.Popen(
        [sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.read(1)
        assert 0.19 <= CpuTime(child.pid, f"{tmp_path}/").seconds() < 1
        child.kill()
    assert process_seconds(child.pid) == 0


def test_without_control_groups_rusage_counts(tmp_path: Path) -> None:
    measured = CpuTime(0, f"{tmp_path}/")
    subprocess.run([sys.executable, "-c", BUSY], stdin=subprocess.DEVNULL, check=True, capture_output=True)
    assert 0.19 <= measured.seconds() < 2
