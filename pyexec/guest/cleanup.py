"""Restore a used sandbox to its initial state, and check the result. See docs/design/sandbox-reuse.md.

All processes of the program are dead by then, so nothing can interfere. Part of the supervisor (see bootstrap.py)."""

import fcntl
import os
import re
import resource
import signal
import stat
import sys
import time

from pyexec.guest.usage import DIRECTORIES, mount_path

SHARED_MEMORY = "/dev/shm"
CLEANUP_SECONDS = 0.1
"""Processor time that a cleanup may take. If it takes longer, a new container is cheaper."""
DEPTH_MAX = 64
TOLERANCE = 8 * 1024 * 1024
"""Bytes by which the memory may differ, because the kernel counts it in batches."""
GET_INODE_FLAGS = 0x80086601
"""FS_IOC_GETFLAGS on 64-bit machines."""
SOCKETS = ("/proc/self/net/sockstat", "/proc/self/net/sockstat6")
SOCKET_COUNTS = re.compile("([A-Z0-9]+|sockets):|(used|inuse|tw) ([0-9]+)")
"""The protocols in these files, and the counters that belong to one network namespace. `used` counts sockets of all
kinds, and `tw` TCP connections that wait after their end. The lists of sockets, such as /proc/net/tcp, would take
milliseconds: for each of them, the kernel searches the table of all connections of the machine."""
IPC = ("/proc/sysvipc/shm", "/proc/sysvipc/msg", "/proc/sysvipc/sem")
KERNEL_MOUNTS = re.compile("/(proc|sys)(/|$)|/dev(/pts|/mqueue)?$")
"""Mounts that a container may write to, as far as its user's permissions allow, but that hold no files of a program.
`observe` looks at the rest."""


class Dirty(Exception):
    """The sandbox is not in its initial state; the text is the reason."""


class FreshState:
    """The state of a sandbox that has not run a program yet. `restore` returns to it."""

    def __init__(self, memory):
        self.memory = memory
        try:
            self.roots = [Root(path) for path in (*DIRECTORIES, SHARED_MEMORY)]
            self.memory_bytes = memory.charged()
            self.kills = memory.oom_kills()
            self.descriptors = descriptors()
            self.state = observe()
            foreign = foreign_mounts([root.path for root in self.roots])
            self.doubt = "there is another writable mount: %s" % foreign[0] if foreign else None
        except OSError as error:  # a seccomp profile or a runtime refuses it
            self.doubt = "its state cannot be observed: %s" % error

    def restore(self):
        """Remove everything that the last program has left. Raise `Dirty` if that fails, or if anything differs."""
        if self.doubt:
            raise Dirty(self.doubt)
        deadline = time.process_time() + CLEANUP_SECONDS
        signal.set_wakeup_fd(-1)
        for fd in descriptors() - self.descriptors:
            close(fd)
        try:
            for root in self.roots:
                root.restore(deadline)
            state = observe()
        except OSError as error:
            raise Dirty("it could not be cleaned: %s" % error) from error
        for name, value in self.state.items():
            if state[name] != value:
                raise Dirty("its %s differ from before" % name)
        if self.memory.oom_kills() != self.kills:
            raise Dirty("the kernel has killed a process for lack of memory")
        if self.memory.charged() > self.memory_bytes + TOLERANCE:
            raise Dirty("it uses more memory than before")


class Root:
    """The root of a file system in memory that the program can write to."""

    def __init__(self, path):
        self.path = path
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.is_own = os.fstat(self.fd).st_uid == os.geteuid()
        self.state = self.present_state()
        info = os.fstat(self.fd)
        self.times = (info.st_atime_ns, info.st_mtime_ns)

    def present_state(self):
        """Return owner and mode, attributes and flags, and the numbers of used blocks and inodes."""
        info, usage = os.fstat(self.fd), os.statvfs(self.fd)
        return (
            info.st_uid,
            info.st_gid,
            info.st_mode,
            sorted(os.listxattr(self.fd)),
            inode_flags(self.fd),
            usage.f_blocks - usage.f_bfree,
            usage.f_files - usage.f_ffree,
        )

    def restore(self, deadline):
        """Remove all files, and restore the root itself. Raise `Dirty` or `OSError` if that fails."""
        if self.is_own:
            os.fchmod(self.fd, self.state[2] & 0o7777)
        empty(self.fd, deadline)
        if self.is_own:
            for name in set(os.listxattr(self.fd)) - set(self.state[3]):
                os.removexattr(self.fd, name)
            os.utime(self.fd, ns=self.times)
        if self.present_state() != self.state:
            raise Dirty("%s is not as before" % self.path)


def inode_flags(fd):
    """Return the flags that `chattr` changes; None if the file system has none."""
    flags = bytearray(8)
    try:
        fcntl.ioctl(fd, GET_INODE_FLAGS, flags)
    except OSError:
        return None
    return int.from_bytes(flags[:4], sys.byteorder)


def empty(directory, deadline, depth=0, root=None):
    """Remove everything in an open directory. Raise `Dirty` if it takes too long.

    If directories are nested too deeply, move them to the open directory `root`; without one, raise `Dirty`."""
    if depth > DEPTH_MAX:
        raise Dirty("its directories are nested too deeply")
    with os.scandir(directory) as entries:
        for entry in entries:
            if time.process_time() > deadline:
                raise Dirty("the cleanup took too long")
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.name, dir_fd=directory)
                continue
            # It is not a link, and no process is left to replace it by one.
            os.chmod(entry.name, 0o700, dir_fd=directory)
            if depth == DEPTH_MAX and root is not None:
                unused = os.urandom(8).hex()
                os.rename(entry.name, unused, src_dir_fd=directory, dst_dir_fd=root)
                continue
            child = os.open(entry.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
            try:
                empty(child, deadline, depth + 1, root)
            finally:
                os.close(child)
            os.rmdir(entry.name, dir_fd=directory)


def foreign_mounts(own):
    """Return the writable mounts that are neither in `own` nor the kernel's."""
    with open("/proc/self/mountinfo", "rb") as file:
        mounts = [line.split(b" ") for line in file]
    writable = {mount_path(fields[4]) for fields in mounts if b"rw" in fields[5].split(b",")}
    return [
        path
        for path in sorted(writable.difference(own))
        if not KERNEL_MOUNTS.match(path) and not is_device(path)
    ]


def is_device(path):
    """Return True for a device of the runtime, such as a console, or /dev/null where it hides a file."""
    return stat.S_ISCHR(os.lstat(path).st_mode)


def observe():
    """Return what a program could leave outside of its files, by name."""
    limits = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]
    return {
        "processes": [name for name in os.listdir("/proc") if name.isdigit()],
        "message queues": names("/dev/mqueue"),
        "terminals": names("/dev/pts"),
        "System V objects": [len(text(path).splitlines()) for path in IPC],
        "sockets": [SOCKET_COUNTS.findall(text(path)) for path in SOCKETS],
        "resource limits": [resource.getrlimit(limit) for limit in limits],
        "priorities": (os.getpriority(os.PRIO_PROCESS, 0), os.sched_getaffinity(0)),
        "signals": (signal.sigpending(), signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "devices": devices(),
    }


def devices():
    """Return the device files and links with the times at which they changed: anyone may set their times to now."""
    with os.scandir("/dev") as entries:
        found = {entry.path: entry.stat(follow_symlinks=False) for entry in entries}
    return {path: info.st_ctime_ns for path, info in found.items() if not stat.S_ISDIR(info.st_mode)}


def names(path):
    """Return the sorted names in a directory; none if it does not exist."""
    try:
        return sorted(os.listdir(path))
    except FileNotFoundError:
        return []


def text(path):
    """Return the text of a file of /proc; nothing if it does not exist, as in a kernel without this feature."""
    try:
        with open(path) as file:
            return file.read()
    except FileNotFoundError:
        return ""


def descriptors():
    """Return the descriptors of this process."""
    fd = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY)
    try:
        return {int(name) for name in os.listdir(fd)} - {fd}
    finally:
        os.close(fd)


def close(fd):
    try:
        os.close(fd)
    except OSError:
        pass  # the descriptor of a listing that has ended
