"""Test that the usage in a result counts all processes, whatever the program does to hide them."""

import pytest

from tests.support.attack import BRIEF, COMPLETED, TIMEOUT, Attack, end_of
from tests.support.cases import sampled

pytestmark = pytest.mark.used_once

BUSY_CHILDREN = """
import os, time
for _ in range(2):
    if os.fork() == 0:
        end = time.process_time() + 0.4
        while time.process_time() < end: pass
        os._exit(0)
"""
IGNORED = "import signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)"
WAIT_FOR_ALL = """
try:
    while True: os.wait()
except ChildProcessError:
    pass
"""


@sampled("before", ["", IGNORED], ids=["waits", "ignores SIGCHLD"], every=2)
async def test_processor_time_of_all_children_counts(attack: Attack, before: str) -> None:
    result = await attack(before + BUSY_CHILDREN + WAIT_FOR_ALL)
    assert end_of(result) == COMPLETED
    assert 0.8 <= result["usage"]["cpu_seconds"] < 2


async def test_the_time_of_the_supervisor_does_not_count(attack: Attack) -> None:
    """The supervisor works as long as the program prints, and polls while it sleeps."""
    result = await attack("import time\nfor _ in range(1000): print(flush=True); time.sleep(0.0005)")
    busy = await attack("import time\nwhile time.process_time() < 0.2: pass")
    assert result["usage"]["cpu_seconds"] < 0.5
    assert 0.2 <= busy["usage"]["cpu_seconds"] < 0.3


async def test_a_timeout_with_little_processor_time_has_usage(attack: Attack) -> None:
    result = await attack("while True: print(end='x')", config={**BRIEF, "cpus": 0.05})
    assert end_of(result) == TIMEOUT
    assert 0 < result["usage"]["cpu_seconds"] < 1


async def test_memory_that_is_mapped_many_times_does_not_exceed_the_limit(attack: Attack) -> None:
    source = """
import mmap, os
file = os.memfd_create('shared')
os.ftruncate(file, 10 * 2**20)
areas = [mmap.mmap(file, 0, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE) for _ in range(30)]
"""
    result = await attack(source, config={"memory_mb": 64})
    assert end_of(result) == COMPLETED
    assert 10 * 2**20 <= result["usage"]["peak_memory_bytes"] <= 64 * 2**20
