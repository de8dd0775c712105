"""Measure the memory of a session's program, without what the supervisor itself keeps for the session.

Part of the supervisor of a session (see bootstrap.py)."""

import os

from pyexec.guest.memory import Memory


class SessionMemory(Memory):
    """As `Memory`, but the supervisor's own memory counts at no time: it keeps the frames of a cell, and a file that
    the server writes passes through it."""

    def __init__(self):
        super().__init__()
        self.statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        self.page_bytes = os.sysconf("SC_PAGE_SIZE")

    def charged(self):
        _, resident, shared = map(int, os.pread(self.statm, 128, 0).split()[:3])
        return super().charged() - (resident - shared) * self.page_bytes

    def begin_cell(self):
        """Measure the peak of a cell, and what the kernel kills, from now on."""
        self.peak, self.kills = 0, self.oom_kills()
