"""What a sandbox's program holds of memory, as the kernel counts it for the container.

This file travels into the container as text, as supervisor.py says."""

import contextlib
import os

from pyexec.guest.wire import CHUNK, TMP, WORK

CGROUP = "/sys/fs/cgroup/"


class Memory:
    """What counts as the program's memory: everything charged to the container but the files in /work and /tmp,
    and but what was there before it started. Control groups version 1 and 2.

    What it reads stays open: opening takes memory of the container's, and while a program that the kernel has killed
    for want of it is still being taken apart, whoever asks for more is killed next."""

    def __init__(self, root=CGROUP):
        self.v1 = os.path.exists(root + "memory/memory.stat")
        home = root + "memory/" if self.v1 else root
        self.stat = os.open(home + "memory.stat", os.O_RDONLY | os.O_CLOEXEC)
        self.events = os.open(
            home + ("memory.oom_control" if self.v1 else "memory.events"), os.O_RDONLY | os.O_CLOEXEC
        )
        self.peak = 0
        self.floor = 0
        self.kills = 0
        self.score = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)

    def mark(self, held=0):
        """From here on counts as the program's, and so do the bytes that it holds already."""
        self.floor = self.charged() - held
        self.kills = self.oom_kills()

    @contextlib.contextmanager
    def dying_first(self):
        """What is started meanwhile is what the kernel kills first when memory runs out: it inherits the score."""
        own = os.pread(self.score, 16, 0)
        os.pwrite(self.score, b"1000", 0)
        try:
            yield
        finally:
            os.pwrite(self.score, own, 0)

    def used(self):
        used = max(0, self.charged() - self.floor)
        self.peak = max(self.peak, used)
        return used

    def charged(self):
        stat = figures(self.stat)
        anonymous = stat["total_rss"] if self.v1 else stat["anon"]
        shared = stat.get("total_shmem", 0) if self.v1 else stat["shmem"]
        return int(anonymous) + max(0, int(shared) - stored(WORK) - stored(TMP))

    def oom_kills(self):
        return int(figures(self.events).get("oom_kill", 0))

    def was_exhausted(self):
        return self.oom_kills() > self.kills


def figures(fd):
    """The names and numbers in a control group's file, as they are now."""
    text = b""
    while True:
        part = os.pread(fd, CHUNK, len(text))
        if not part:
            return dict(line.split() for line in text.decode().splitlines())
        text += part


def stored(path):
    """Bytes of files on the tmpfs at `path`."""
    info = os.statvfs(path)
    return (info.f_blocks - info.f_bfree) * info.f_frsize


def anonymous(pid):
    """Bytes of memory that are a process's own: no file's, nobody else's."""
    with open("/proc/%d/statm" % pid) as file:
        _, resident, shared = map(int, file.read().split()[:3])
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")
