"""Estimate what the processes of a container hold of something that the kernel counts for no container.

Counting is slow, so it waits until a counter of the whole machine has grown. Part of the supervisor (see
bootstrap.py)."""

import os
import time

CHECK_SECONDS = 1.0
ATTEMPTS = 5
"""How often the threads of a process are listed, if all threads found so far have ended."""
PF_EXITING = 4
PAUSE_FACTOR = 10
"""The pause after counting, as a multiple of the time that counting took."""


class Estimate:
    """An estimate. A subclass defines `read`, which returns the machine's counter; `count`, which estimates what all
    other processes of the container hold, at most a maximum; and `FREE`, the growth of the counter above which they are
    counted."""

    FREE = 0

    def __init__(self):
        self.least = self.read()
        self.check_at = time.monotonic() + CHECK_SECONDS
        self.estimate = 0

    def used(self):
        """Return the estimate. It is at most a few seconds old, and at most the growth of the machine's counter."""
        if time.monotonic() >= self.check_at:
            begun = time.thread_time()
            present = self.read()
            self.least = min(self.least, present)
            grown = present - self.least
            self.estimate = self.count(grown) if grown > self.FREE else 0
            taken = time.thread_time() - begun
            self.check_at = time.monotonic() + max(CHECK_SECONDS, PAUSE_FACTOR * taken)
        return self.estimate

    def reset(self):
        """Forget what the previous program held."""
        self.estimate = 0


def total_of(count, maximum, seconds):
    """Return the sum of `count(process, deadline)` over all other processes, at most `maximum`.

    `process` is a directory in /proc, and `deadline` a time of `time.thread_time`: counting may take `seconds` of
    processor time.

    Return `maximum` if `count` raises `PermissionError` or `TimeoutError`: the process may hold any number."""
    total, deadline = 0, time.thread_time() + seconds
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                total += count("/proc/" + name, deadline)
            except (PermissionError, TimeoutError):
                return maximum
            except OSError:
                continue  # it has ended
        if total >= maximum:
            return maximum
    return total


def count_of_process(process, count):
    """Return `count(thread)` for a thread of a process, a directory in /proc, that runs; 0 if all threads have ended.

    A thread that has ended, also the first one, shows neither descriptors nor mappings. `count` returns None for it.
    Raises `PermissionError` if each thread ends before it is read."""
    ended = set()
    for _ in range(ATTEMPTS):
        threads = [each for each in os.listdir(process + "/task") if each not in ended]
        if not threads:
            return 0
        for thread in threads:
            found = count(process + "/task/" + thread)
            if found is not None:
                return found
            ended.add(thread)
    raise PermissionError(process)  # each thread starts the next one and ends


def is_exiting(thread):
    """Return True if the thread ends, is a zombie or does not exist: its descriptors cannot be read."""
    try:
        with open(thread + "/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return fields[0] in (b"Z", b"X") or bool(int(fields[6]) & PF_EXITING)
