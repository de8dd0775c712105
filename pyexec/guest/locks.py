"""Estimate the memory of file locks, which the kernel counts for no container, and does not limit.

A program can set millions of locks in a minute, each of which takes 192 bytes of the kernel. Only the descriptors of a
process show them, so the estimate takes samples, and only if the memory of the whole kernel has grown. See
docs/design/docker-adapter.md. Part of the supervisor (see bootstrap.py)."""

import os
import re
import time

from pyexec.guest.estimate import Estimate, count_of_process, is_exiting, total_of

LOCK_BYTES = 192
COUNT_SECONDS = 0.25
"""The processor time that counting may take. A program can make its descriptors expensive to read, and meanwhile the
supervisor checks no other limit."""
NOT_READ = ("anon_inode:inotify", "anon_inode:[eventpoll]")
"""Descriptors whose text has a line for each of many thousand watches. Locks on them are all in one list of the kernel,
so setting many takes too long."""
FREE_BYTES = 64 * 1024 * 1024
"""Locks are counted only after the kernel's memory has grown by this much."""
SAMPLES = 8
"""Of a process with more descriptors than this, at least this many and less than twice as many are read."""
CHUNK = 64 * 1024
"""The text of a descriptor is read in pieces of this size."""
UNRECLAIMABLE = re.compile(rb"^SUnreclaim: +([0-9]+) kB", re.MULTILINE)


class FileLocks(Estimate):
    """The bytes of the locks of all other processes of the container."""

    FREE = FREE_BYTES

    def __init__(self, meminfo="/proc/meminfo"):
        self.meminfo = os.open(meminfo, os.O_RDONLY | os.O_CLOEXEC)
        super().__init__()

    def read(self):
        """Return the memory of the whole kernel that it cannot reclaim; 0 if the runtime does not show it."""
        found = UNRECLAIMABLE.search(os.pread(self.meminfo, 8192, 0))
        return 1024 * int(found[1]) if found else 0

    def count(self, maximum):
        """Return an estimate of the bytes, at most `maximum`."""
        return count_bytes(maximum)


def count_bytes(maximum):
    """Return an estimate of the bytes, at most `maximum`; `maximum` if counting takes too long."""
    return total_of(lambda *process: LOCK_BYTES * count_locks(*process), maximum, COUNT_SECONDS)


def count_locks(process, deadline):
    """Return an estimate of the locks of a process, from a few descriptors of a thread that runs.

    Raises `PermissionError` if no descriptors can be read, although the process runs, and `TimeoutError` at `deadline`,
    a time of `time.thread_time`."""
    return count_of_process(process, lambda thread: sample_locks(thread, deadline))


def sample_locks(thread, deadline):
    """Return an estimate of the locks of a thread's process; None if the thread ends."""
    try:
        names = os.listdir(thread + "/fdinfo")
        step = max(1, len(names) // SAMPLES)
        first = time.monotonic_ns() % step
        found = step * sum(locks_of(thread, name, deadline) for name in names[first::step])
        return None if is_exiting(thread) else found
    except PermissionError:
        if is_exiting(thread):  # Linux before 5.11 protects those, too
            return None
        raise
    except (FileNotFoundError, ProcessLookupError):
        return None


def locks_of(thread, name, deadline):
    """Return the number of locks of an open file that belong to this process. Raises `TimeoutError` at `deadline`."""
    if time.thread_time() > deadline:
        raise TimeoutError(thread)
    try:
        if os.readlink(thread + "/fd/" + name) in NOT_READ:
            return 0
        with open(thread + "/fdinfo/" + name, "rb", buffering=0) as file:
            found = 0
            while True:
                in_chunk = file.read(CHUNK).count(b"lock:\t")
                found += in_chunk
                if not in_chunk:  # lines of other kinds, which can be many, follow those of locks
                    return found
    except (FileNotFoundError, ProcessLookupError):
        return 0  # it has just been closed
