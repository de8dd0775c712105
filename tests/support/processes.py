"""Suspend a process, as `kill -STOP` does."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol


class Suspendable(Protocol):
    """A process of `subprocess` or of `tests.support.forked`."""

    @property
    def pid(self) -> int: ...

    def send_signal(self, sig: int, /) -> None: ...


def suspend(process: Suspendable) -> None:
    """Stop a process with SIGSTOP; return once the kernel has stopped all its threads.

    The signal alone is not enough: until its threads have stopped, the process still answers. The kernel reports this
    only to the parent, which may be another process than this one."""
    process.send_signal(signal.SIGSTOP)
    while (alive := _states(process.pid) - {"Z", "X"}) != {"T"}:
        assert alive, f"process {process.pid} ended before it was suspended"
        time.sleep(0.001)


def _states(pid: int) -> set[str]:
    """Return the states of the threads of a process; an empty set if the process is gone."""
    states = set()
    with suppress(FileNotFoundError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):  # this thread has ended meanwhile
                states.add((thread / "stat").read_text().rpartition(")")[2].split()[0])
    return states


def resume(process: Suspendable) -> None:
    """Continue a suspended process; do nothing if it has ended."""
    process.send_signal(signal.SIGCONT)


@contextmanager
def suspended(process: Suspendable) -> Iterator[None]:
    """Keep a process suspended in the block."""
    suspend(process)
    try:
        yield
    finally:
        resume(process)
