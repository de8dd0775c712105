"""Check settings of this machine's kernel that programs share. An engine on another machine is not checked."""

import os
from collections.abc import Iterator
from pathlib import Path

from pyexec.domain.spec import MEBIBYTE
from pyexec.preflight.check_result import CheckResult, ok, warning
from pyexec.settings import Settings
from pyexec.wiring.sandboxes import networks, setup_pids_max
from pyexec.wiring.services import setups_max

KERNEL = Path("/proc/sys/kernel")
NEIGHBOURS = Path("/proc/sys/net/ipv4/neigh/default/gc_thresh3")
"""Only the machine's own network namespace has this file."""
PID_NAMESPACE = Path("/proc/self/ns/pid")
MACHINE_PIDS = "pid:[4026531836]"
"""The initial pid namespace, which is the machine's, has this number on every kernel. Since Linux 6.14, every other one
has a `pid_max` of its own (2026-11-28, Linux 6.18: 4194304 in a container, 32768 on its machine)."""
PID_MAX_DEFAULT = 32768
"""The lowest default of `pid_max`, with up to 32 processors."""
NETWORK_ADDRESSES = 65536
"""The addresses of a network as Docker creates it by default."""


def check_kernel(
    settings: Settings,
    kernel: Path = KERNEL,
    neighbours: Path = NEIGHBOURS,
    pid_namespace: Path = PID_NAMESPACE,
) -> Iterator[CheckResult]:
    """Warn if this machine sends core dumps to a program, or if programs could use up its process ids or its table of
    neighbours. In a container, say which values of the machine to check."""
    if not settings.engine_host().startswith("unix://"):
        return
    yield _check_core_dumps((kernel / "core_pattern").read_text().strip())
    pid_max, threads_max = (int((kernel / name).read_text()) for name in ("pid_max", "threads-max"))
    if os.readlink(pid_namespace) == MACHINE_PIDS:
        yield _check_process_ids(settings, min(pid_max, threads_max))
    else:
        yield _check_process_ids(settings, min(PID_MAX_DEFAULT, threads_max), is_assumed=True)
    if networks(settings):
        yield _check_neighbours(int(neighbours.read_text()) if neighbours.exists() else None)


def _check_core_dumps(pattern: str) -> CheckResult:
    if pattern.startswith("|"):
        return warning(
            "core",
            f"crashes on this machine start {pattern[1:].split()[0]!r} as root. Sandboxes prevent that with their core "
            "limit of 1 byte, which images with their own interpreter can lower; set kernel.core_pattern to core",
        )
    return ok("core", "core dumps start no program on this machine")


def _check_process_ids(settings: Settings, maximum: int, *, is_assumed: bool = False) -> CheckResult:
    """Compare the processes and threads of all programs and setups together with what the kernel has for the whole
    machine. If `is_assumed`, the machine has at least `maximum` unless its operator has lowered it."""
    total = (settings.max_concurrent + settings.max_sessions) * settings.pids_max
    what = "programs and sessions"
    if settings.setup_network != "none":
        total += _setups_max(settings) * setup_pids_max(settings)
        what = "programs, sessions and setups"
    if is_assumed:
        text = (
            f"{what} may start {total} processes and threads; a container does not show how many this machine has, so "
            f"make sure that kernel.pid_max and kernel.threads-max are at least {2 * total} there"
        )
    else:
        text = f"{what} may start {total} of this machine's {maximum} processes and threads"
    if total > maximum // 2:
        return warning(
            "processes",
            f"{text}; lower PYEXEC_PIDS_MAX, PYEXEC_MAX_CONCURRENT or PYEXEC_MAX_SETUPS, or raise kernel.pid_max and "
            "kernel.threads-max",
        )
    return ok("processes", text)


def _setups_max(settings: Settings) -> int:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return setups_max(settings, os.cpu_count() or 1, memory // MEBIBYTE)


def _check_neighbours(maximum: int | None) -> CheckResult:
    """Compare the addresses that one program can look up with the table that the kernel has for the whole machine.

    `maximum` is its number of entries; None if that is unknown."""
    if maximum is None:
        return warning(
            "neighbours",
            "a container does not show how many entries this machine's neighbour table (ARP) has; run sysctl "
            "net.ipv4.neigh.default.gc_thresh3 on the machine: with 1024, the usual value, a program with network can "
            "fill it (docs/security.md)",
        )
    if maximum < NETWORK_ADDRESSES:
        return warning(
            "neighbours",
            f"a program with network can fill this machine's neighbour table (ARP), which has {maximum} entries; "
            "raise net.ipv4.neigh.default.gc_thresh3 to 262144, or let Docker create small networks (docs/security.md)",
        )
    return ok("neighbours", f"this machine's neighbour table (ARP) has {maximum} entries")
