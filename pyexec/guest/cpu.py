"""Measure the processor time of a sandbox's program, as the kernel counts it for the container.

Part of the supervisor (see bootstrap.py)."""

import contextlib
import os
import resource
import time

from pyexec.guest.memory import CGROUP, read_counters


class CpuTime:
    """The processor time of all processes of the container except the supervisor, since this object was made.

    Unlike `getrusage`, the control group also counts processes that no process waits for. Works with control groups of
    version 1 and 2. A runtime that shows no control groups has `getrusage` only."""

    def __init__(self, interpreter_pid, root=CGROUP):
        """Include the time that this interpreter has used so far, as if it had been started now."""
        self.v1 = os.path.exists(root + "cpuacct/cpuacct.usage")
        try:
            name = "cpuacct/cpuacct.usage" if self.v1 else "cpu.stat"
            self.counter = os.open(root + name, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self.counter = None
        self.baseline = self.total() - (0 if self.counter is None else process_seconds(interpreter_pid))

    def seconds(self):
        return max(0.0, self.total() - self.baseline)

    def total(self):
        """Return the seconds since the start of the container, without those of the supervisor."""
        if self.counter is None:
            usage = resource.getrusage(resource.RUSAGE_CHILDREN)
            return usage.ru_utime + usage.ru_stime
        own = time.process_time()  # first, because this call brings the control group's counter up to date
        if self.v1:
            return int(os.pread(self.counter, 32, 0)) / 1e9 - own
        return int(read_counters(self.counter)["usage_usec"]) / 1e6 - own


def process_seconds(pid):
    """Return the processor time of a running process, 0 if there is none."""
    with contextlib.suppress(OSError):
        if pid:
            return time.clock_gettime(~pid << 3 | 2)  # its CPU-time clock, see clock_getcpuclockid(3)
    return 0.0
