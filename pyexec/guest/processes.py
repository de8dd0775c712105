"""Observe the processes of a sandbox: their limit, as the kernel counts it for the container, and their signals.

Part of the supervisor (see bootstrap.py)."""

import contextlib
import os
import re
import signal

from pyexec.guest.usage import CGROUP, read_counters

REFUSALS_PER_SECOND = 1000
"""If the kernel refuses a program more new processes and threads per second than this, it counts as a fork bomb."""

SIGNALS = re.compile(rb"Sig(Blk|Cgt):\s*([0-9a-f]+)")


class ProcessLimit:
    """The limit on processes and threads. Works with control groups of version 1 and 2.

    A runtime that shows no control groups reports nothing; the limit itself applies nevertheless."""

    def __init__(self, root=CGROUP):
        home = root + "pids/" if os.path.exists(root + "pids/pids.max") else root
        try:
            with open(home + "pids.max") as file:
                self.maximum = int(file.read())
            self.events = os.open(home + "pids.events", os.O_RDONLY | os.O_CLOEXEC)
        except (OSError, ValueError):  # no control group is visible, or the limit is "max"
            self.events = None
        self.baseline = self.recent = self.refusals()
        self.recent_since = 0.0

    def refusals(self):
        """Return how often the kernel has refused a new process or thread in this container."""
        return 0 if self.events is None else int(read_counters(self.events)["max"])

    def is_fork_bomb(self, now):
        """Return True if the program keeps starting processes or threads although the kernel refuses them."""
        refusals = self.refusals()
        if refusals - self.recent > REFUSALS_PER_SECOND:
            return True
        if now - self.recent_since >= 1:
            self.recent, self.recent_since = refusals, now
        return False

    def reached(self):
        """Return the limit if the program has reached it, else None."""
        return self.maximum if self.refusals() > self.baseline else None


def processes_that_take(number):
    """Return the processes that have a handler for this signal, and do not block it in their main thread.

    If the runtime does not show the signals of processes, all are returned."""
    bit = 1 << (number - 1)
    return [pid for pid in other_processes() if takes(pid, bit)]


def other_processes():
    """Return the ids of all processes of the container except this one."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]


def takes(pid, bit):
    try:
        with open("/proc/%d/status" % pid, "rb") as file:
            masks = {name: int(digits, 16) for name, digits in SIGNALS.findall(file.read())}
    except OSError:
        return False  # it has ended
    return bool(masks.get(b"Cgt", bit) & bit & ~masks.get(b"Blk", 0))


def kill_all():
    """Kill every process of the container except this one, in one step that no fork can outrun."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
