"""The first process of a setup container: reports its Python, and measures the disk space of the setup.

It prints JSON, one object a line: first its Python, then every second the bytes that the setup stores. If the setup
must end, the line has the reason, and all its processes are stopped. A byte on the standard input means: kill all other
processes, list what the setup left in its home, delete the tools, report the final size, and end. The end of the input
means: the server is gone, end.

setup_bootstrap.py loads it. docs/design/user-and-home.md describes what happens to the home."""

import ctypes
import json
import os
import select
import shutil
import signal
import stat
import sys
import time

from pyexec.guest.locks import FileLocks
from pyexec.guest.mapped_files import MappedFiles
from pyexec.guest.setup_disk import (
    TOO_MANY_FILES,
    TOO_MANY_LOCKS,
    TOO_MANY_SOCKETS,
    Disk,
    kill_processes,
    stop_processes,
)
from pyexec.guest.sockets import SUMMARY, Sockets

TOOLS = "/.pyexec"
"""The directory of the installer and its files during the setup."""
HOME = "/root"
SETUP_LIST = TOOLS + "/home.json"
"""The list of paths that the setup left in its home, for the supervisor (see home.py). It stays in the image."""
HIDDEN = (".cache/pip", ".cache/uv")
"""Caches of installers, which no program needs."""
PATHS_MAX = 1000
DEPTH_MAX = 64
TICK_SECONDS = 0.02
REPORT_SECONDS = 1.0
KILL_SECONDS = 10
LOCKS_BYTES_MAX = max(512 << 20, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 16)
"""The limit is high because processes of other users are unreadable: all growth of the kernel's memory counts for
them."""
MAPPED_FILES_MAX = 1 << 18
"""As many as a sandbox may open by its descriptors. The limit is high for the same reason."""
SOCKETS_BYTES_MAX = LOCKS_BYTES_MAX
"""Limit on the kernel's buffers for sockets. No container pays for those of some kinds, such as netlink."""
SOCKETS_SECONDS = 0.25
"""The lists of sockets take milliseconds to read."""
PR_SET_DUMPABLE = 4


def main(timeout_seconds, disk_bytes):
    # Commands of the setup have the same user and capabilities, and must not control this process.
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # reap orphaned processes of the setup
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, lambda *_: os._exit(1))
    signal.alarm(timeout_seconds)
    disk = Disk(disk_bytes)
    report(python=list(sys.version_info[:3]), executable=sys.executable)
    if wait_for_end(disk):
        kill_processes(KILL_SECONDS)
        paths = set(read_list()).union(make_readable(HOME, disk.since))
        shutil.rmtree(TOOLS)
        if paths:
            write_list(sorted(paths)[:PATHS_MAX])
        report(disk_bytes=disk.measure().total)


def wait_for_end(disk):
    """Check the limits until the input has a byte or ends. Return False if it has ended or the setup was stopped."""
    reported = time.monotonic()
    locks, mapped_files = FileLocks(), MappedFiles()
    sockets = Sockets() if os.path.exists(SUMMARY) else None  # not every runtime shows them
    sockets_checked = 0.0
    while not select.select([0], [], [], TICK_SECONDS)[0]:
        stopped = disk.check()
        if locks.used() > LOCKS_BYTES_MAX:
            stop_processes()
            stopped = TOO_MANY_LOCKS
        elif mapped_files.used() > MAPPED_FILES_MAX:
            stop_processes()
            stopped = TOO_MANY_FILES
        elif sockets and time.monotonic() >= sockets_checked + SOCKETS_SECONDS:
            sockets_checked = time.monotonic()
            if sockets.used() > SOCKETS_BYTES_MAX:
                stop_processes()
                stopped = TOO_MANY_SOCKETS
        if stopped:
            report(disk_bytes=disk.stored, stopped=stopped)
            os.read(0, 1)  # the processes stay stopped until the server removes the container
            return False
        if time.monotonic() >= reported + REPORT_SECONDS:
            report(disk_bytes=disk.stored)
            reported = time.monotonic()
    return bool(os.read(0, 1))


def report(**facts):
    os.write(1, json.dumps(facts).encode() + b"\n")


def make_readable(home, since):
    """Make everything new in `home` readable for every user. Return the relative paths of what is new."""
    paths = [path for name in names_in(home) for path in find_new(home, name, since, 1)]
    for folder in {os.path.dirname(path) for path in paths}:
        while folder:
            add_mode(os.path.join(home, folder), 0o111)
            folder = os.path.dirname(folder)
    if paths:
        add_mode(home, 0o111)
    return paths


def find_new(home, path, since, depth):
    """Return the new paths at `path` and below it. A directory in which everything is new counts as one."""
    full = os.path.join(home, path)
    try:
        info = os.lstat(full)
    except OSError:
        return []
    is_new = info.st_ctime >= since and path not in HIDDEN
    if stat.S_ISLNK(info.st_mode):
        return [path] if is_new else []
    if is_new:
        execute = 0o111 if info.st_mode & 0o111 else 0
        add_mode(full, 0o444 | execute)
    if not stat.S_ISDIR(info.st_mode):
        return [path] if is_new and stat.S_ISREG(info.st_mode) else []
    names = names_in(full) if depth < DEPTH_MAX and path not in HIDDEN else []
    found = []
    for name in names:
        child = os.path.join(path, name)
        below = find_new(home, child, since, depth + 1)
        is_new = is_new and below == [child]
        found += below
    return [path] if is_new or len(found) > PATHS_MAX else found


def names_in(folder):
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def add_mode(path, mode):
    """Add permissions. An existing file of a lower layer is copied, so do nothing if it has them."""
    try:
        present = os.stat(path).st_mode
        if present & mode != mode:
            os.chmod(path, stat.S_IMODE(present) | mode)
    except OSError:
        pass


def read_list():
    """Return the list of the image, if it is itself the result of a setup."""
    try:
        with open(SETUP_LIST) as file:
            return [path for path in json.load(file) if isinstance(path, str)]
    except (OSError, ValueError, TypeError, RecursionError):
        return []


def write_list(paths):
    os.mkdir(TOOLS, 0o755)
    with open(SETUP_LIST, "w") as file:
        json.dump(paths, file)
