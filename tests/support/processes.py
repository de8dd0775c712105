"""Suspend a process, as `kill -STOP` does."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def suspend(process: subprocess.Popen[Any]) -> None:
    """Stop a child process with SIGSTOP; return once the kernel has stopped all its threads.

    The signal alone is not enough: until its threads have stopped, the process still answers."""
    process.send_signal(signal.SIGSTOP)
    state = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    assert state is not None
    assert state.si_code == os.CLD_STOPPED, f"process {process.pid} ended before it was suspended"


def resume(process: subprocess.Popen[Any]) -> None:
    """Let a suspended process go on; do nothing if it has ended."""
    process.send_signal(signal.SIGCONT)


@contextmanager
def suspended(process: subprocess.Popen[Any]) -> Iterator[None]:
    """Keep a process suspended in the block."""
    suspend(process)
    try:
        yield
    finally:
        resume(process)
