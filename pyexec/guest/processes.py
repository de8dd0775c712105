"""Observe the limit on processes and threads of a sandbox, as the kernel counts it for the container.

Part of the supervisor (see bootstrap.py)."""

import os

from pyexec.guest.memory import CGROUP, read_counters

REFUSALS_PER_SECOND = 1000
"""A program that the kernel refuses more new processes and threads than this in a second does not stop by itself."""


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
