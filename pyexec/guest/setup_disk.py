"""Measure what a setup stores on the engine's disk. Part of the first process of a setup container.

The measurement counts blocks, inodes and extended attributes of everything that the setup has created or changed, and
of deleted files that a process still holds. docs/design/environments.md explains the method."""

import errno
import mmap
import os
import signal
import stat
import time

PAGE_BYTES = 4096
"""Every inode counts as at least this much."""
RECHECK_SECONDS = 60
"""Longest time between two measurements."""
ATTEMPTS, ATTEMPT_SECONDS = 5, 0.2
RESERVE_BYTES, RESERVE_SHARE = 1 << 30, 20
"""A setup is stopped if the free space of the engine's file system is less than RESERVE_BYTES and less than
1 / RESERVE_SHARE of its size, or if less than 1 / RESERVE_SHARE of its inodes are free."""
CLOCK_REALTIME_COARSE = 5
"""The clock of the times of files. It is a few milliseconds behind the usual clock."""
MEMORY_TYPES = frozenset(
    "binfmt_misc bpf cgroup cgroup2 configfs debugfs devpts devtmpfs fusectl hugetlbfs mqueue proc pstore ramfs "
    "securityfs sysfs tmpfs tracefs".split()
)
DELETED = " (deleted)"
OVER_LIMIT, ENGINE_FULL = "limit", "engine"
TOO_MANY_LOCKS, TOO_MANY_FILES, TOO_MANY_SOCKETS = "locks", "files", "sockets"
"""Why a setup must end, as its first process reports it in `stopped`."""


class Disk:
    """Stops the setup if it stores more than its limit."""

    def __init__(self, limit):
        self.limit = limit
        self.since = time.clock_gettime(CLOCK_REALTIME_COARSE)
        self.memory = memory_devices()
        self.used_at_start = self.used = used_bytes()
        self.stored = self.growth = 0
        self.measured_at = self.not_before = time.monotonic()

    def check(self):
        """Return why the setup must end, after its processes were stopped; None if it may continue.

        The growth of the whole file system bounds that of the setup, and is known at once. So the setup is measured
        only if that growth could have brought it over its limit."""
        if is_engine_full():
            stop_processes()
            return ENGINE_FULL
        used = used_bytes()
        self.growth += max(0, used - self.used)
        self.used = used
        now = time.monotonic()
        is_due = self.stored + self.growth > self.limit or now > self.measured_at + RECHECK_SECONDS
        if not is_due or now < self.not_before:
            return None
        for attempt in range(ATTEMPTS):
            stop_processes()
            self.growth = 0
            found = self.measure()
            self.stored = found.total
            if found.total > self.limit:
                return OVER_LIMIT
            # What a measurement cannot see is at most what the whole file system has grown by.
            if found.complete or used_bytes() - self.used_at_start <= self.limit:
                break
            if attempt == ATTEMPTS - 1:
                return OVER_LIMIT
            continue_processes()
            time.sleep(ATTEMPT_SECONDS)
        continue_processes()
        self.measured_at = time.monotonic()
        self.not_before = 2 * self.measured_at - now
        return None

    def measure(self):
        found = Measurement(self.limit, self.since, self.memory)
        found.add_tree()
        found.add_deleted()
        return found


class Measurement:
    """The sizes of the files of a setup. `complete` is False if a process may hide a deleted file.

    The count stops soon after it has exceeded the limit."""

    def __init__(self, limit, since, memory):
        self.limit, self.since, self.memory = limit, since, memory
        self.total = 0
        self.complete = True
        self.seen = set()

    def add(self, path, info):
        """Count a file or directory, if it is new and on a disk."""
        if info.st_ctime < self.since or info.st_dev in self.memory:
            return
        if info.st_nlink != 1 and not stat.S_ISDIR(info.st_mode):
            key = info.st_dev, info.st_ino
            if key in self.seen:
                return
            self.seen.add(key)
        self.total += max(info.st_blocks * 512, PAGE_BYTES) + attribute_bytes(path)

    def add_tree(self):
        """Count all files that have a name. Paths can be longer than the kernel allows, so change the directory."""
        os.chdir("/")
        stack = [self.add_directory()]
        while stack and self.total <= self.limit:
            if not stack[-1]:
                stack.pop()
                os.chdir("..")
                continue
            try:
                os.chdir(stack[-1].pop())
            except FileNotFoundError:
                continue
            stack.append(self.add_directory())
        os.chdir("/")

    def add_directory(self):
        """Count the entries of the current directory; return the names of directories in it."""
        names = []
        with os.scandir(".") as entries:
            for entry in entries:
                try:
                    info = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                self.add(entry.name, info)
                if stat.S_ISDIR(info.st_mode) and info.st_dev not in self.memory:
                    names.append(entry.name)
                if self.total > self.limit:
                    break
        return names

    def add_deleted(self):
        """Count the deleted files that processes still hold."""
        for process in os.listdir("/proc"):
            if not process.isdigit() or int(process) == os.getpid():
                continue
            try:
                is_mapped = False
                for task in os.listdir("/proc/%s/task" % process):
                    self.add_descriptors("/proc/%s/task/%s" % (process, task))
                    # A thread that has ended, also the first one, shows no mappings. The others all show the same.
                    is_mapped = is_mapped or self.check_mappings("/proc/%s/task/%s/maps" % (process, task))
            except PermissionError:
                self.complete = False
            except (FileNotFoundError, ProcessLookupError):
                continue
            if self.total > self.limit:
                return

    def add_descriptors(self, task):
        for name in ["cwd"] + ["fd/" + number for number in os.listdir(task + "/fd")]:
            path = task + "/" + name
            try:
                target = read_link(path)
                if target.startswith("socket:") and has_descriptors(path.replace("/fd/", "/fdinfo/")):
                    self.complete = False
                if target.endswith(DELETED):
                    self.add_held(path, os.stat(path))
            except (FileNotFoundError, ProcessLookupError):
                continue

    def add_held(self, path, info):
        key = info.st_dev, info.st_ino
        if key not in self.seen and (stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode)):
            self.add(path, info)
            self.seen.add(key)

    def check_mappings(self, path):
        """Look for mapped files that are deleted. Their size is unknown, except that of open ones.

        Return False if there are no mappings at all."""
        line = None
        with open(path, errors="replace") as lines:
            for line in lines:
                if not line.endswith(DELETED + "\n"):
                    continue
                _, _, _, device, inode, _ = line.split(None, 5)
                number = parse_device(device, 16)
                if number not in self.memory and (number, int(inode)) not in self.seen:
                    self.complete = False
        return line is not None


def read_link(path):
    """Return the target of a link in /proc. If its path is too long for the kernel, it may be deleted."""
    try:
        return os.readlink(path)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return DELETED


def attribute_bytes(path):
    """Return the bytes of the extended attributes. Some file systems do not count them as blocks."""
    follow = path.startswith("/proc/")
    try:
        names = os.listxattr(path, follow_symlinks=follow)
        return sum(len(name) + len(os.getxattr(path, name, follow_symlinks=follow)) for name in names)
    except OSError:
        return 0


def has_descriptors(path):
    """Return True if descriptors are in flight to this socket: then no process has to hold their files."""
    with open(path) as lines:
        return any(line.startswith("scm_fds:") and int(line.split()[1]) for line in lines)


def memory_devices():
    """Return the devices of file systems that use no disk."""
    devices = set()
    with open("/proc/self/mountinfo", errors="replace") as lines:
        for line in lines:
            mount, _, source = line.partition(" - ")
            if source.split()[0] in MEMORY_TYPES:
                devices.add(parse_device(mount.split()[2]))
    with mmap.mmap(-1, PAGE_BYTES), open("/proc/self/maps", errors="replace") as lines:
        # Memory that is shared, or made by memfd_create, looks like a deleted file of one internal device.
        devices.update(parse_device(line.split()[3], 16) for line in lines if "/dev/zero" + DELETED in line)
    return devices


def parse_device(text, base=10):
    major, minor = text.split(":")
    return os.makedev(int(major, base), int(minor, base))


def used_bytes():
    """Return the used bytes of the file system of the container's root."""
    info = os.statvfs("/")
    return (info.f_blocks - info.f_bfree) * info.f_frsize + (info.f_files - info.f_ffree) * PAGE_BYTES


def is_engine_full():
    info = os.statvfs("/")
    reserve = min(RESERVE_BYTES, info.f_blocks * info.f_frsize // RESERVE_SHARE)
    return info.f_bavail * info.f_frsize < reserve or info.f_favail < info.f_files // RESERVE_SHARE


def stop_processes():
    send_to_all(signal.SIGSTOP)


def continue_processes():
    send_to_all(signal.SIGCONT)


def kill_processes(seconds):
    """Kill all other processes. Wait until none is left, for at most `seconds`."""
    deadline = time.monotonic() + seconds
    while send_to_all(signal.SIGKILL) and time.monotonic() < deadline:
        time.sleep(0.005)  # processes that Docker has started here are no children, so none can be waited for


def send_to_all(number):
    """Send a signal to all other processes of the container. Return False if there is none."""
    if os.getpid() != 1:
        raise RuntimeError(
            "not the first process of a container: this would reach other processes of the machine"
        )
    try:
        os.kill(-1, number)
    except ProcessLookupError:
        return False
    return True
