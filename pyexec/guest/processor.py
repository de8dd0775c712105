"""Measure the processor time of a sandbox, as the kernel counts it for the container, and compare it with the limit.

Part of the supervisor (see bootstrap.py)."""

import math
import os
import time

from pyexec.guest.memory import CGROUP, read_counters


class ProcessorTime:
    """The processor time of all processes except the supervisor, since `start`. Works with control groups of version 1
    and 2.

    A runtime that shows no control groups reports nothing; then the server alone enforces the limit."""

    def __init__(self, root=CGROUP):
        self.v1 = os.path.exists(root + "cpuacct/cpuacct.usage")
        try:
            name = "cpuacct/cpuacct.usage" if self.v1 else "cpu.stat"
            self.counter = os.open(root + name, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self.counter = None
        self.cpus = os.cpu_count() or 1
        self.start(None)

    def start(self, limit):
        """Count from now on. `limit` is in seconds; None is no limit."""
        self.baseline = self.counted()
        self.limit = math.inf if limit is None else limit

    def counted(self):
        """Return the seconds that the container has used since its start."""
        if self.counter is None:
            return 0.0
        if self.v1:
            total = int(os.pread(self.counter, 64, 0)) / 1e9
        else:
            total = int(read_counters(self.counter)["usage_usec"]) / 1e6
        return total - time.process_time()

    def left(self):
        """Return how many seconds the program may still use; a negative number if it has used too many."""
        return self.limit if self.limit == math.inf else self.limit - (self.counted() - self.baseline)
