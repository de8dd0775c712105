"""Tries to break every limit of the sandbox that it runs in, and tells what came of it.

This file travels into the container as text (`python3 -I -S -c`), so it is self-contained: the standard library only,
of Python 3.8 and later, on Linux. It only collects facts; what they mean is judged by the server that asked."""

import ctypes
import errno
import json
import os
import signal
import socket
import sys
import time

MEBIBYTE = 1024 * 1024
END_SECONDS = 20
"""When it ends, whoever is alive."""
CGROUP = "/sys/fs/cgroup"
UNLIMITED = 2**63
NOWHERE = ("198.51.100.1", 9)
"""An address that nobody has (RFC 5737): a datagram socket that is bound to it sends nothing, and asks for a route."""
PR_GET_NO_NEW_PRIVS = 39
BURNERS = 2
BURN_SECONDS = 0.2
CAPABILITY_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def read(path):
    """The file's text; None when there is no such file here."""
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return None


def number(text):
    """A control group's figure; None when it has none."""
    if text is None:
        return None
    return UNLIMITED if text.strip() in ("max", "-1") else int(text)


def control_group(root=CGROUP):
    """What the container's control group, of version 1 or 2, says of its limits."""
    if os.path.exists(root + "/memory/memory.limit_in_bytes"):
        memory = number(read(root + "/memory/memory.limit_in_bytes"))
        both = number(read(root + "/memory/memory.memsw.limit_in_bytes"))
        quota = number(read(root + "/cpu/cpu.cfs_quota_us"))
        period = number(read(root + "/cpu/cpu.cfs_period_us"))
        return {
            "swap_bytes": None if both is None else max(0, both - memory),
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


def swap_of_host():
    """Bytes of swap that the machine has."""
    found = [line.split() for line in read("/proc/meminfo").splitlines() if line.startswith("SwapTotal:")]
    return int(found[0][1]) * 1024 if found else 0


def child(work):
    """A process that does this, and ends."""
    pid = os.fork()
    if not pid:
        try:
            work()
        finally:
            os._exit(1)
    return pid


def survives(size):
    """Whether a process can have so many bytes of memory."""

    def take():
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
        taken = [b"x" * MEBIBYTE for _ in range(size // MEBIBYTE)]
        os._exit(0 if taken else 1)

    _, status = os.waitpid(child(take), 0)
    return os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0


def processes(most):
    """How many there can be at once, this one among them; looks no further than just over `most`."""
    started = []
    try:
        while len(started) < most:
            started.append(child(signal.pause))
    except OSError as error:
        if error.errno != errno.EAGAIN:
            raise
    for pid in started:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return len(started) + 1


def room(directory, most):
    """How many bytes a file there can have; looks no further than just over `most`."""
    path = directory + "/probe"
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT)
    except PermissionError:
        return 0
    written = 0
    try:
        while written <= most:
            written += os.write(file, b"x" * 65536)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
    os.close(file)
    os.unlink(path)
    return written


def burnt():
    """Seconds of processor that a few busy processes get, and how long they tried."""

    def burn():
        while time.monotonic() < end:
            pass

    before, start = os.times(), time.monotonic()
    end = start + BURN_SECONDS
    for pid in [child(burn) for _ in range(BURNERS)]:
        os.waitpid(pid, 0)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return used, time.monotonic() - start


def has_route():
    """Whether packets could leave."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(NOWHERE)
        except OSError:
            return False
    return True


def can_write_root():
    """Whether the root is mounted writable. On one that is read-only, that comes before any question of rights."""
    try:
        os.mkdir("/probe")
    except OSError as error:
        return error.errno != errno.EROFS and not os.statvfs("/").f_flag & os.ST_RDONLY
    return True


def main():
    """Its argument are the limits as a JSON object, its answer a line of JSON."""
    signal.signal(signal.SIGALRM, lambda *_: os._exit(1))
    signal.alarm(END_SECONDS)
    limits = json.loads(sys.argv[1])
    status = dict(line.split(":", 1) for line in read("/proc/self/status").splitlines())
    facts = dict(control_group(), host_swap_bytes=swap_of_host())
    facts["interfaces"] = [line.split(":")[0].strip() for line in read("/proc/net/dev").splitlines()[2:]]
    facts["has_route"] = has_route()
    facts["can_write_root"] = can_write_root()
    facts["capabilities"] = [name for name in CAPABILITY_SETS if int(status[name], 16)]
    facts["no_new_privileges"] = ctypes.CDLL(None).prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1
    facts["seccomp"] = status.get("Seccomp", "0").strip() == "2"
    facts["ids"] = sorted({*os.getresuid(), *os.getresgid(), *os.getgroups()})
    facts["work_bytes"] = room("/work", limits["work_bytes"])
    facts["tmp_bytes"] = room("/tmp", limits["tmp_bytes"])
    facts["survives_memory"] = survives(2 * limits["memory_bytes"])
    facts["processes"] = processes(limits["pids_max"])
    facts["cpu_seconds"], facts["burn_seconds"] = burnt()
    os.write(1, json.dumps(facts).encode() + b"\n")


if __name__ == "__main__":
    main()
