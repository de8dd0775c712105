"""Estimate the memory of file locks, which the kernel counts for no container, and does not limit.

A program can set millions of locks in a minute, each of which takes 192 bytes of the kernel. Only the descriptors of a
process show them, so the estimate takes samples, and only if the memory of the whole kernel has grown. See
docs/design/docker-adapter.md. Part of the supervisor (see bootstrap.py)."""

import os
import re
import time

LOCK_BYTES = 192
CHECK_SECONDS = 1.0
FREE_BYTES = 64 * 1024 * 1024
"""As long as the kernel's memory has grown by less, locks count as nothing, and are not looked for."""
SAMPLES = 8
"""How many descriptors of a process are read."""
UNRECLAIMABLE = re.compile(rb"^SUnreclaim: +([0-9]+) kB", re.MULTILINE)


class FileLocks:
    """The locks of all other processes of the container."""

    def __init__(self, meminfo="/proc/meminfo"):
        self.meminfo = os.open(meminfo, os.O_RDONLY | os.O_CLOEXEC)
        self.least = self.kernel_bytes()
        self.checked_at = time.monotonic()
        self.estimate = 0

    def used(self):
        """Return an estimate of their bytes, at most a second old. It is never more than the kernel has grown by."""
        now = time.monotonic()
        if now >= self.checked_at + CHECK_SECONDS:
            self.checked_at = now
            present = self.kernel_bytes()
            self.least = min(self.least, present)
            grown = present - self.least
            self.estimate = count_bytes(grown) if grown > FREE_BYTES else 0
        return self.estimate

    def kernel_bytes(self):
        """Return the memory of the whole kernel that it cannot reclaim; 0 if the runtime does not show it."""
        found = UNRECLAIMABLE.search(os.pread(self.meminfo, 8192, 0))
        return 1024 * int(found[1]) if found else 0


def count_bytes(maximum):
    """Return an estimate of the bytes, at most `maximum`."""
    total = 0
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                total += LOCK_BYTES * count_locks("/proc/" + name)
            except PermissionError:
                return maximum  # the process may hide any number of locks
            except OSError:
                continue  # it has ended
        if total >= maximum:
            return maximum
    return total


def count_locks(process):
    """Return an estimate of the locks of a process, from a few of its descriptors."""
    for task in os.listdir(process + "/task"):
        folder = "%s/task/%s/fdinfo" % (process, task)
        try:
            names = os.listdir(folder)
        except PermissionError:
            if has_ended("%s/task/%s/stat" % (process, task)):  # Linux before 5.11 protects those, too
                continue
            raise
        if names:  # the first thread may have ended
            step = max(1, len(names) // SAMPLES)
            return step * sum(
                locks_of(folder + "/" + name) for name in names[time.monotonic_ns() % step :: step]
            )
    return 0


def has_ended(stat):
    """Return True for a thread that only waits until its parent reads its exit status."""
    with open(stat, "rb") as file:
        return file.read().rpartition(b")")[2].split()[0] in (b"Z", b"X")


def locks_of(path):
    """Return the number of locks of an open file that belong to this process."""
    try:
        with open(path, "rb") as file:
            return file.read().count(b"lock:\t")
    except FileNotFoundError:
        return 0  # it has just been closed
