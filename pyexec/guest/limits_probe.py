"""Try to exceed every limit of the sandbox, and report what happened.

The text of this file is the program of a sandbox (`python3 -I -S -c`). It uses only the standard library of Python 3.8
or later, on Linux. Its argument is a JSON object with the limits. It prints a report as one line of JSON; the server
judges it."""

import ctypes
import errno
import json
import os
import resource
import signal
import socket
import sys
import time

MEBIBYTE = 1024 * 1024
TIMEOUT_SECONDS = 20
"""The probe ends after this time in any case."""
CGROUP = "/sys/fs/cgroup"
UNLIMITED = 2**63
UNUSED_ADDRESS = ("198.51.100.1", 9)
"""An address for documentation (RFC 5737). To connect a datagram socket to it looks up a route, and sends nothing."""
PR_GET_NO_NEW_PRIVS = 39
BUSY_PROCESSES = 2
BUSY_SECONDS = 0.2
IN_MEMORY = ("tmpfs", "ramfs", "mqueue", "devpts", "proc", "sysfs", "cgroup", "cgroup2")
"""Kinds of file systems that take no space on a disk."""
TCP_BUFFERS = ("/proc/sys/net/ipv4/tcp_rmem", "/proc/sys/net/ipv4/tcp_wmem")
CAPABILITY_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def read(path):
    """Return the text of a file; None if it cannot be read."""
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return None


def number(text):
    """Parse a value of a control group; None stays None."""
    if text is None:
        return None
    return UNLIMITED if text.strip() in ("max", "-1") else int(text)


def control_group(root=CGROUP):
    """Return the limits in the container's control group, of version 1 or 2."""
    if os.path.exists(root + "/memory/memory.limit_in_bytes"):
        memory = number(read(root + "/memory/memory.limit_in_bytes"))
        with_swap = number(read(root + "/memory/memory.memsw.limit_in_bytes"))
        quota = number(read(root + "/cpu/cpu.cfs_quota_us"))
        period = number(read(root + "/cpu/cpu.cfs_period_us"))
        return {
            "swap_bytes": None if with_swap is None else max(0, with_swap - memory),
            "cpus": None if quota is None else float(quota) / period,
            "cpu_shares": number(read(root + "/cpu/cpu.shares")),
            "cpu_weight": None,
        }
    quota, _, period = (read(root + "/cpu.max") or "").partition(" ")
    return {
        "swap_bytes": number(read(root + "/memory.swap.max")),
        "cpus": float(number(quota)) / int(period) if quota else None,
        "cpu_shares": None,
        "cpu_weight": number(read(root + "/cpu.weight")),
    }


def host_swap_bytes():
    """Return the size of the machine's swap."""
    found = [line.split() for line in read("/proc/meminfo").splitlines() if line.startswith("SwapTotal:")]
    return int(found[0][1]) * 1024 if found else 0


def fork(work):
    """Start a process that calls `work` and ends. Return its process id."""
    pid = os.fork()
    if not pid:
        try:
            work()
        finally:
            os._exit(1)
    return pid


def can_allocate(size):
    """Return True if a process can use this many bytes of memory."""

    def allocate():
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
        blocks = [b"x" * MEBIBYTE for _ in range(size // MEBIBYTE)]
        os._exit(0 if blocks else 1)

    _, status = os.waitpid(fork(allocate), 0)
    return os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0


def count_processes(limit):
    """Return how many processes can run at once, including this one. Stop counting just above `limit`."""
    started = []
    try:
        while len(started) < limit:
            started.append(fork(signal.pause))
    except OSError as error:
        if error.errno != errno.EAGAIN:
            raise
    for pid in started:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return len(started) + 1


def writable_bytes(directory, limit):
    """Return how large a file in a directory can become. Stop writing just above `limit`."""
    path = directory + "/probe"
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT)
    except PermissionError:
        return 0
    written = 0
    try:
        while written <= limit:
            written += os.write(file, b"x" * 65536)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
    os.close(file)
    os.unlink(path)
    return written


def measure_cpu():
    """Return the processor time that a few busy processes get, and the elapsed time."""

    def keep_busy():
        while time.monotonic() < end:
            pass

    before, start = os.times(), time.monotonic()
    end = start + BUSY_SECONDS
    for pid in [fork(keep_busy) for _ in range(BUSY_PROCESSES)]:
        os.waitpid(pid, 0)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return used, time.monotonic() - start


def has_route():
    """Return True if there is a route to other networks."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(UNUSED_ADDRESS)
        except OSError:
            return False
    return True


def can_write_root():
    """Return True if the root is mounted writable. A read-only mount causes EROFS before permissions are checked."""
    try:
        os.mkdir("/probe")
    except OSError as error:
        return error.errno != errno.EROFS and not os.statvfs("/").f_flag & os.ST_RDONLY
    return True


def tcp_buffer_bytes(root=CGROUP):
    """Return the maximum size of a TCP buffer; None with version 2 of control groups, which count socket memory."""
    if not os.path.exists(root + "/memory/memory.limit_in_bytes"):
        return None
    sizes = [text.split()[2] for text in map(read, TCP_BUFFERS) if text]
    return max(map(int, sizes), default=UNLIMITED)


def count_terminals():
    """Return 1 if a pseudoterminal can be opened, else 0."""
    try:
        os.openpty()
    except OSError:
        return 0
    return 1


def readable(paths):
    """Return the paths that have content. A masked file is empty, and a masked directory, too."""
    found = []
    for path in paths:
        try:
            with open(path, "rb") as file:
                content = file.read(1)
        except IsADirectoryError:
            content = os.listdir(path)
        except OSError:
            continue
        if content:
            found.append(path)
    return found


def writable_volumes():
    """Return the directories of other file systems than the root in which files use space on a disk."""
    mounts = [line.split()[1:3] for line in read("/proc/self/mounts").splitlines()]
    return [path for path, kind in mounts if kind not in IN_MEMORY and path != "/" and is_writable(path)]


def is_writable(path):
    return os.path.isdir(path) and os.access(path, os.W_OK)


def main():
    signal.signal(signal.SIGALRM, lambda *_: os._exit(1))
    signal.alarm(TIMEOUT_SECONDS)
    limits = json.loads(sys.argv[1])
    status = dict(line.split(":", 1) for line in read("/proc/self/status").splitlines())
    report = dict(control_group(), host_swap_bytes=host_swap_bytes())
    report["interfaces"] = [line.split(":")[0].strip() for line in read("/proc/net/dev").splitlines()[2:]]
    report["has_route"] = has_route()
    report["can_write_root"] = can_write_root()
    report["capabilities"] = [name for name in CAPABILITY_SETS if int(status[name], 16)]
    report["no_new_privileges"] = ctypes.CDLL(None).prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1
    report["seccomp"] = status.get("Seccomp", "0").strip() == "2"
    report["ids"] = sorted({*os.getresuid(), *os.getresgid(), *os.getgroups()})
    report["resources"] = {
        name: resource.getrlimit(getattr(resource, "RLIMIT_" + name.upper()))[1]
        for name in limits["resources"]
        if hasattr(resource, "RLIMIT_" + name.upper())
    }
    report["tcp_buffer_bytes"] = tcp_buffer_bytes()
    report["terminals"] = count_terminals()
    report["readable"] = readable(limits["masked_paths"])
    report["volumes"] = writable_volumes()
    report["work_bytes"] = writable_bytes("/work", limits["disk_bytes"])
    report["tmp_bytes"] = writable_bytes("/tmp", limits["disk_bytes"])
    report["exceeds_memory"] = can_allocate(2 * limits["memory_bytes"])
    report["processes"] = count_processes(limits["pids_max"])
    report["cpu_seconds"], report["elapsed_seconds"] = measure_cpu()
    os.write(1, json.dumps(report).encode() + b"\n")


if __name__ == "__main__":
    main()
