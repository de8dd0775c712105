"""The limits that apply to a cell of a session, and between cells.

Part of the supervisor of a session (see bootstrap.py)."""

import contextlib
import ctypes
import os
import stat
import time

from pyexec.guest.cleanup import SHARED_MEMORY, Dirty, empty
from pyexec.guest.processes import ProcessLimit
from pyexec.guest.program import CPUS, FASTEST_ALLOCATION, LONGEST_CHECK_SECONDS
from pyexec.guest.usage import DIRECTORIES, DISK_TOLERANCE, CpuTime, Memory, disk_bytes_used
from pyexec.guest.wire import WORK

CLEANUP_SECONDS = 5.0
IPC_RMID = 0


class Limits:
    """Measures a session against its limits."""

    def __init__(self, memory, memory_bytes, disk_bytes):
        self.memory = memory
        self.memory_bytes = memory_bytes
        self.disk_bytes = disk_bytes + DISK_TOLERANCE
        self.kept_bytes = 0
        """Size of the files that were left after a restart, as far as they still exist."""
        self.modes = {path: stat.S_IMODE(os.stat(path).st_mode) for path in (SHARED_MEMORY, *DIRECTORIES)}
        self.cpu = CpuTime(0)
        self.cpu_before = 0.0
        self.processes = ProcessLimit()

    def begin_cell(self):
        """Count what this cell uses from now on."""
        self.memory.begin_cell()
        self.cpu_before = self.cpu.seconds()
        self.processes.baseline = self.processes.refusals()

    def reset(self):
        """Forget what dead processes have caused. Call this only after all processes of the session were killed."""
        self.processes.reset()
        self.memory.forget_processes()

    def cpu_seconds(self):
        return max(0.0, self.cpu.seconds() - self.cpu_before)

    def exceeded(self, now):
        """Return the limit that the session exceeds, or None, and the seconds until the next check."""
        memory_left = self.memory_bytes - self.memory.used()
        disk_used = disk_bytes_used()
        self.kept_bytes = min(self.kept_bytes, disk_used)
        disk_left = max(self.disk_bytes, self.kept_bytes + DISK_TOLERANCE) - disk_used
        if disk_left < 0:
            return "disk_limit", 0
        if memory_left < 0 or self.memory.has_too_many_kills():
            return "out_of_memory", 0
        if self.processes.is_fork_bomb(now):
            return "process_limit", 0
        seconds = min(memory_left, disk_left) / FASTEST_ALLOCATION
        return None, min(max(0.01, seconds), LONGEST_CHECK_SECONDS)

    def seconds_to_cpu_limit(self, cell):
        return max(0.01, (cell.cpu_seconds - self.cpu_seconds()) / CPUS)

    def remove_files(self, reason):
        """Remove the files and System V objects that count against the limit on memory or disk space, if `reason` is
        one of these limits. Call this only after all processes of the session were killed.

        Files in /work, and files that cannot be removed, stay: the next cell, or the server, can delete them."""
        if reason == "out_of_memory":
            remove_system_v_objects()
            paths = [SHARED_MEMORY]
        elif reason == "disk_limit":
            paths = [path for path in DIRECTORIES if path != WORK]
        else:
            return
        for path in paths:
            with contextlib.suppress(OSError):
                os.chmod(path, self.modes[path])  # fails if another user owns it: unchanged
            with contextlib.suppress(OSError, Dirty):
                empty_directory(path)
        self.kept_bytes = disk_bytes_used()


def remove_system_v_objects():
    """Remove the shared memory, message queues and semaphores of the session, which outlive its processes."""
    libc = ctypes.CDLL(None)
    calls = {
        "shm": lambda number: libc.shmctl(number, IPC_RMID, None),
        "msg": lambda number: libc.msgctl(number, IPC_RMID, None),
        "sem": lambda number: libc.semctl(number, 0, IPC_RMID),
    }
    for kind, remove in calls.items():
        with contextlib.suppress(OSError), open("/proc/sysvipc/" + kind) as file:
            for number in [int(line.split(None, 2)[1]) for line in file.readlines()[1:]]:
                remove(number)


def empty_directory(path):
    """Remove everything in a directory, to any depth. Call this only while no other process of the session runs."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    deadline = time.process_time() + CLEANUP_SECONDS
    try:
        while os.listdir(folder):
            empty(folder, deadline, root=folder)
    finally:
        os.close(folder)


class SessionMemory(Memory):
    """As `Memory`, but the supervisor's own memory never counts: it keeps the frames of a cell, and a file that
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
