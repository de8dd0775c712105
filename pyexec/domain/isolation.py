"""Evaluate the reports of the isolation check's probes: limits that are not enforced, networks that expose the host.

See docs/design/isolation-check.md."""

from collections.abc import Collection, Mapping, Sequence

from attrs import frozen

from pyexec.domain.sandbox_limits import RESOURCE_LIMITS, TCP_BUFFER_BYTES
from pyexec.domain.spec import MEBIBYTE

LIMITS = (
    "memory",
    "swap",
    "pids",
    "disk",
    "tmp",
    "network",
    "read_only_root",
    "capabilities",
    "no_new_privileges",
    "seccomp",
    "uid",
    "rlimits",
    "sockets",
    "terminals",
    "masked_paths",
    "volumes",
    "cpus",
    "cpu_shares",
)
"""The names of all limits, as PYEXEC_ALLOW_UNENFORCED takes them."""
DEFAULT_CPU_SHARES, DEFAULT_CPU_WEIGHT = 1024, 100
"""The kernel's defaults for a control group (version 1, version 2)."""
QUOTA_PERIOD_SECONDS = 0.1
"""The kernel limits processor time per period, so a measurement can include one extra period."""
CPU_TIME_ERROR_SECONDS = 0.08
"""The maximum error of the kernel's count of a process's processor time."""


@frozen(kw_only=True)
class ProbeLimits:
    """The limits of a probe's sandbox. `cpus` is None if the engine does not support this limit."""

    memory_bytes: int
    disk_bytes: int
    pids_max: int
    cpu_shares: int
    cpus: float | None
    uids: range
    """Each sandbox has one of these ids."""


@frozen(kw_only=True)
class MountReport:
    """Observation of the mount probe: the path of a file of the engine, from the root of its file system."""

    path: str


@frozen(kw_only=True)
class LimitsReport:
    """Observations of the limits probe. A field is None if the probe cannot observe it from inside the sandbox."""

    exceeds_memory: bool
    """True if a process could allocate twice its memory limit."""
    swap_bytes: int | None
    host_swap_bytes: int
    processes: int
    work_bytes: int
    tmp_bytes: int
    interfaces: Sequence[str]
    has_route: bool
    can_write_root: bool
    capabilities: Sequence[str]
    """The names of the capability sets that are not empty."""
    no_new_privileges: bool
    seccomp: bool
    ids: Sequence[int]
    resources: Mapping[str, int]
    """The hard limits on resources, by name."""
    tcp_buffer_bytes: int | None
    """The maximum size of a TCP buffer; None if the kernel counts the memory of sockets."""
    terminals: int
    """The number of pseudoterminals that could be opened: 0 or 1."""
    readable: Sequence[str]
    """Paths that should be masked, and are not."""
    volumes: Sequence[str]
    """Writable directories that are not in memory."""
    cpu_seconds: float
    elapsed_seconds: float
    cpus: float | None
    cpu_shares: int | None
    """Set for version 1 of control groups."""
    cpu_weight: int | None
    """Set for version 2, in which the engine converts the shares to a weight."""


@frozen(kw_only=True)
class NetworkReport:
    """Addresses that the network probe reached. `host` is None if the network has no route to the outside."""

    host: str | None
    open: Sequence[int]
    refused: Sequence[int]
    """Ports of the host that refused the connection. The answer shows that no firewall protects the host."""
    metadata: bool
    docker_resolver: bool
    """True if Docker's own resolver answers. Programs can keep it, and so Docker, busy."""


def unenforced_limits(
    limits: ProbeLimits, report: LimitsReport, unsupported: Collection[str]
) -> Mapping[str, str]:
    """Return the limits that are not enforced, each with the observation that shows it.

    The engine's own list of `unsupported` limits decides only where the probe cannot observe anything."""
    problems = {
        **_resources(limits, report),
        **_privileges(limits, report),
        **_kernel(report),
        **_processor(limits, report),
    }
    observed = {"cpus": report.cpus, "cpu_shares": _shares(report)}
    for name in unsupported:
        if name in observed and (observed[name] is None or (name == "cpus" and limits.cpus is None)):
            problems[name] = "the engine does not support it"
    return {name: problem for name in LIMITS if (problem := problems.get(name))}


def network_exposures(reports: Mapping[str, NetworkReport]) -> Sequence[str]:
    """Return a sentence for each network (by name) from which programs reach the host or the metadata address."""
    return [
        f"programs on the network {name} can reach {' and '.join(targets)}"
        for name, report in sorted(reports.items())
        if (targets := _reachable(report))
    ]


def docker_resolvers(reports: Mapping[str, NetworkReport]) -> Sequence[str]:
    """Return a sentence for each network (by name) from which programs reach Docker's resolver."""
    return [
        f"programs on the network {name} can ask Docker's own resolver"
        for name, report in sorted(reports.items())
        if report.docker_resolver
    ]


def _resources(limits: ProbeLimits, report: LimitsReport) -> Mapping[str, str | None]:
    memory, swap = limits.memory_bytes // MEBIBYTE, report.swap_bytes
    swaps = report.host_swap_bytes > 0 and (swap is None or swap > 0)
    return {
        "memory": f"a process allocated {2 * memory} MiB; the limit is {memory} MiB"
        if report.exceeds_memory
        else None,
        "swap": "the kernel can move memory of a program to swap" if swaps else None,
        "pids": f"{report.processes} processes ran; the limit is {limits.pids_max}"
        if report.processes > limits.pids_max
        else None,
        "disk": _file_system("/work", report.work_bytes, limits.disk_bytes),
        "tmp": _file_system("/tmp", report.tmp_bytes, limits.disk_bytes),  # noqa: S108 inside the sandbox
    }


def _file_system(directory: str, written: int, limit: int) -> str | None:
    if written <= limit:
        return None
    return f"{directory} took more than its limit of {limit // MEBIBYTE} MiB"


def _privileges(limits: ProbeLimits, report: LimitsReport) -> Mapping[str, str | None]:
    others = [name for name in report.interfaces if name != "lo"]
    return {
        "network": f"there is a network: {', '.join(others) or 'a route'}"
        if others or report.has_route
        else None,
        "read_only_root": "the root file system is writable" if report.can_write_root else None,
        "capabilities": f"not empty: {', '.join(report.capabilities)}" if report.capabilities else None,
        "no_new_privileges": None if report.no_new_privileges else "the flag is not set",
        "seccomp": None if report.seccomp else "no filter is set",
        "uid": None
        if len(report.ids) == 1 and report.ids[0] in limits.uids
        else f"user and group ids are {', '.join(map(str, report.ids))} instead of one of PYEXEC_SANDBOX_UIDS",
    }


def _kernel(report: LimitsReport) -> Mapping[str, str | None]:
    """Check resource limits, TCP buffers, pseudoterminals, and access to the machine's files."""
    wrong = [
        f"{name} {limit} instead of {RESOURCE_LIMITS[name]}"
        for name, limit in report.resources.items()
        if limit != RESOURCE_LIMITS[name]
    ]
    buffer = report.tcp_buffer_bytes
    return {
        "rlimits": f"resource limits are {', '.join(wrong)}" if wrong else None,
        "sockets": f"a TCP connection can hold {buffer} bytes in each direction, not {TCP_BUFFER_BYTES}"
        if buffer is not None and buffer > TCP_BUFFER_BYTES
        else None,
        "terminals": "programs can open pseudoterminals" if report.terminals else None,
        "masked_paths": f"readable: {', '.join(report.readable)}" if report.readable else None,
        "volumes": f"programs can write to the engine's disk: {', '.join(report.volumes)}"
        if report.volumes
        else None,
    }


def _processor(limits: ProbeLimits, report: LimitsReport) -> Mapping[str, str | None]:
    cpus, shares = None, None
    if limits.cpus is not None:
        most = limits.cpus * (report.elapsed_seconds + QUOTA_PERIOD_SECONDS) + CPU_TIME_ERROR_SECONDS
        if report.cpus is not None and report.cpus > limits.cpus * 1.01:
            cpus = "the control group does not have this limit"
        elif report.cpu_seconds > most:
            cpus = f"programs used {report.cpu_seconds:.2f} s of processor time in {report.elapsed_seconds:.2f} s"
    if report.cpu_shares not in (None, limits.cpu_shares) or report.cpu_weight == DEFAULT_CPU_WEIGHT:
        shares = f"the control group has {_shares(report)}"
    return {"cpus": cpus, "cpu_shares": shares}


def _shares(report: LimitsReport) -> int | None:
    return report.cpu_weight if report.cpu_shares is None else report.cpu_shares


def _reachable(report: NetworkReport) -> Sequence[str]:
    targets = []
    if report.open:
        targets.append(f"this host at {report.host} (open ports: {', '.join(map(str, report.open))})")
    elif report.refused:
        targets.append(f"this host at {report.host}")
    if report.metadata:
        targets.append("the cloud's metadata address")
    return targets
