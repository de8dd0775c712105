"""Estimate how many open files of the machine a container holds through mappings, which no limit of a process bounds.

The limit on open files counts descriptors. A file that is mapped stays open for the kernel after its descriptor was
closed, and a process can have 65,530 mappings, each of another open file. See docs/design/docker-adapter.md. Part of
the supervisor (see bootstrap.py)."""

import os
import re
import time

from pyexec.guest.estimate import Estimate, count_of_process, is_exiting, total_of

FILE_BYTES = 10 * 1024
"""By default, the kernel allows one open file for each 10 KiB of the machine's memory. So a mapped file counts as much
memory of the program, and programs that fit into the machine's memory cannot use up its files."""
FREE_FILES = 65536
"""Mappings are counted only after the number of open files of the machine has grown by this much."""
FREE_MAPPINGS = 1024
"""How many mappings of a process do not count, as many as its descriptors: libraries, and files in memory."""
ANONYMOUS = re.compile(rb"\n[^ ]+ [^ ]+ [^ ]+ 00:00 0 ")
"""A line of a mapping without a file: addresses, permissions, offset, device and inode. The name of a file, which
follows them, can contain anything but a newline."""
COUNT_SECONDS = 0.1
"""The processor time that counting may take."""
CHUNK = 64 * 1024


class MappedFiles(Estimate):
    """How many files all other processes of the container have mapped."""

    FREE = FREE_FILES

    def __init__(self, counter="/proc/sys/fs/file-nr"):
        self.counter = os.open(counter, os.O_RDONLY | os.O_CLOEXEC) if os.path.exists(counter) else None
        super().__init__()

    def read(self):
        """Return the number of open files of the machine; 0 if the runtime does not show it."""
        return 0 if self.counter is None else int(os.pread(self.counter, 128, 0).split()[0])

    def count(self, maximum):
        """Return an estimate of their number, at most `maximum`."""
        return count_mappings(maximum)


def count_mappings(maximum):
    """Return the number of mapped files that are not free, at most `maximum`; `maximum` if a process is unreadable, or
    if counting takes too long."""
    return total_of(mappings_of, maximum, COUNT_SECONDS)


def mappings_of(process, deadline):
    """Return how many files a process has mapped, without those that are free.

    Raises `PermissionError` if they cannot be read, although the process runs, and `TimeoutError` at `deadline`, a time
    of `time.thread_time`."""
    return count_of_process(process, lambda thread: mappings_of_thread(thread, deadline))


def mappings_of_thread(thread, deadline):
    """Return how many files the thread's process has mapped, without those that are free; None if the thread ends."""
    try:
        found = count_lines(thread + "/maps", deadline)
    except PermissionError:
        if is_exiting(thread):
            return None
        raise
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if is_exiting(thread) else max(0, found - FREE_MAPPINGS)


def count_lines(maps, deadline):
    """Return the number of lines with a file. Raises `TimeoutError` at `deadline`."""
    found = 0
    with open(maps, "rb", buffering=0) as file:
        while True:
            data = file.read(CHUNK)
            found += data.count(b"\n") - len(ANONYMOUS.findall(b"\n" + data))
            if not data:
                return found
            if time.thread_time() > deadline:
                raise TimeoutError(maps)
