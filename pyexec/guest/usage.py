"""Measure what a sandbox's program uses: its files, and its memory and processor time, as the kernel counts them for
the container.

Part of the supervisor (see bootstrap.py)."""

import contextlib
import os
import re
import resource
import time

from pyexec.guest.locks import FileLocks
from pyexec.guest.mapped_files import FILE_BYTES, MappedFiles
from pyexec.guest.sockets import SUMMARY, Sockets
from pyexec.guest.wire import CHUNK, TMP, WORK

CGROUP = "/sys/fs/cgroup/"
PAGE_BYTES = 4096
DISK_TOLERANCE = 1024 * 1024
"""Bytes by which all directories together may exceed their limit: a program that has filled one of them gets ENOSPC,
and a few small files in another do not end it."""
NOT_COUNTED = ("/dev/shm", "/dev/mqueue")
"""Writable file systems that count as memory of the program."""
KILLS_MAX = 16
"""A program or a cell may continue after the kernel has killed this many of its processes for lack of memory. Each kill
takes 0.5 to 10 KB of the machine's log, and delays such kills in other containers."""


def writable_directories(mounts="/proc/self/mounts"):
    """Return the directories in which the program can store files: /work, /tmp, and those that the image declares as
    volumes. Each is a tmpfs."""
    found = [WORK, TMP]
    with open(mounts, "rb") as file:
        for line in file:
            _, path, kind = line.split()[:3]
            path = mount_path(path)
            if kind == b"tmpfs" and path not in (*found, *NOT_COUNTED) and is_writable_directory(path):
                found.append(path)
    return found


def mount_path(field):
    """Return the path in a field of /proc/self/mounts or mountinfo, where spaces and some others are octal numbers."""
    return os.fsdecode(re.sub(rb"\\(\d{3})", lambda match: bytes([int(match[1], 8)]), field))


def is_writable_directory(path):
    """Return True for a directory in which this user can create files. Masked files are mounts of /dev/null."""
    return os.path.isdir(path) and os.access(path, os.W_OK)


DIRECTORIES = writable_directories()


def disk_bytes_used():
    """Return the bytes used by all files together. A file counts as at least one page, because empty files use memory
    of the kernel, too."""
    file_systems = [os.statvfs(directory) for directory in DIRECTORIES]
    files = sum(info.f_files - info.f_ffree for info in file_systems)
    return max(sum(map(tmpfs_bytes, file_systems)), files * PAGE_BYTES)


def file_content_bytes():
    """Return the bytes of file content in all directories together."""
    return sum(tmpfs_bytes(os.statvfs(directory)) for directory in DIRECTORIES)


def tmpfs_bytes(info):
    """Return the used bytes of a tmpfs, given its `statvfs`."""
    return (info.f_blocks - info.f_bfree) * info.f_frsize


class Memory:
    """The program's memory: everything charged to the container, minus the files in /work and /tmp, minus the baseline
    that was charged before the program started, plus sockets, file locks and mapped files that are not charged. Works
    with control groups of version 1 and 2.

    All files stay open, because opening a file takes memory of the container. While a process that was killed for
    lack of memory is still being torn down, the kernel kills the next process that asks for memory."""

    def __init__(self, root=CGROUP):
        self.v1 = os.path.exists(root + "memory/memory.stat")
        home = root + "memory/" if self.v1 else root
        self.stat = os.open(home + "memory.stat", os.O_RDONLY | os.O_CLOEXEC)
        self.events = os.open(
            home + ("memory.oom_control" if self.v1 else "memory.events"), os.O_RDONLY | os.O_CLOEXEC
        )
        self.sockets = Sockets() if self.v1 or os.path.exists(SUMMARY) else None
        self.locks = FileLocks()
        self.mapped_files = MappedFiles()
        self.peak = 0
        self.baseline = 0
        self.kills = 0
        self.score = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)

    def set_baseline(self, program_bytes=0):
        """Count memory for the program from now on. `program_bytes` of the memory charged so far belong to it."""
        self.baseline = self.charged() - program_bytes
        self.peak = program_bytes
        self.forget_processes()

    def forget_processes(self):
        """Forget kills, file locks and mapped files: the processes that caused them are dead."""
        self.kills = self.oom_kills()
        self.locks.reset()
        self.mapped_files.reset()

    @contextlib.contextmanager
    def killed_first(self):
        """Let processes started in this context inherit an OOM score that makes the kernel kill them first."""
        own = os.pread(self.score, 16, 0)
        os.pwrite(self.score, b"1000", 0)
        try:
            yield
        finally:
            os.pwrite(self.score, own, 0)

    def used(self):
        """Return the program's bytes, and remember the peak."""
        used = max(0, self.charged() - self.baseline) + self.locks.used()
        used += FILE_BYTES * self.mapped_files.used()
        if self.sockets:
            used += self.sockets.used()
        self.peak = max(self.peak, used)
        return used

    def charged(self):
        """Return the container's bytes of anonymous and shared memory, without files in /work and /tmp."""
        stat = read_counters(self.stat)
        anonymous = stat["total_rss"] if self.v1 else stat["anon"]
        shared = stat.get("total_shmem", 0) if self.v1 else stat["shmem"]
        return int(anonymous) + max(0, int(shared) - file_content_bytes())

    def oom_kills(self):
        """Return how many processes of the container the kernel has killed for lack of memory."""
        return int(read_counters(self.events).get("oom_kill", 0))

    def was_exhausted(self):
        """Return True if the kernel has killed a process of this program or cell for lack of memory."""
        return self.oom_kills() > self.kills

    def has_too_many_kills(self):
        """Return True if the kernel has killed more than `KILLS_MAX` processes of this program or cell."""
        return self.oom_kills() > self.kills + KILLS_MAX


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
        """Return the seconds of processor time used so far."""
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


def read_counters(fd):
    """Return the names and values in an open file of a control group."""
    text = b""
    while True:
        part = os.pread(fd, CHUNK, len(text))
        if not part:
            return dict(line.split() for line in text.decode().splitlines())
        text += part


def private_bytes(pid):
    """Return the bytes of a process that it shares with neither files nor other processes."""
    with open("/proc/%d/statm" % pid) as file:
        _, resident, shared = map(int, file.read().split()[:3])
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")


def process_seconds(pid):
    """Return the processor time of a running process, 0 if there is none."""
    with contextlib.suppress(OSError):
        if pid:
            return time.clock_gettime(~pid << 3 | 2)  # its CPU-time clock, see clock_getcpuclockid(3)
    return 0.0
