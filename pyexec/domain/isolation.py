"""Whether a sandbox's limits bind, judged by what a probe met when it tried to break them."""

from collections.abc import Collection, Mapping, Sequence

from attrs import frozen

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
    "cpus",
    "cpu_shares",
)
"""The names under which an operator may accept that one does not bind."""
DEFAULT_CPU_SHARES, DEFAULT_CPU_WEIGHT = 1024, 100
"""What a control group has, of version 1 and 2, that nobody gave a share."""
PERIOD_SECONDS = 0.1
"""The kernel hands out a bounded processor by the period: one more may begin at either end of what was timed."""
CLOCK_SECONDS = 0.08
"""How exactly the time is known that a process has had."""


@frozen(kw_only=True)
class Asked:
    """The limits of the sandbox that was probed. `cpus` is None when the engine says that it has no such limit."""

    memory_bytes: int
    work_bytes: int
    tmp_bytes: int
    pids_max: int
    cpu_shares: int
    cpus: float | None
    uid: int


@frozen(kw_only=True)
class Findings:
    """What the probe met. None stands for what cannot be seen from inside."""

    survives_memory: bool
    """Whether a process could take twice the memory that there should be."""
    swap_bytes: int | None
    host_swap_bytes: int
    processes: int
    work_bytes: int
    tmp_bytes: int
    interfaces: Sequence[str]
    has_route: bool
    can_write_root: bool
    capabilities: Sequence[str]
    """The sets that are not empty."""
    no_new_privileges: bool
    seccomp: bool
    ids: Sequence[int]
    cpu_seconds: float
    burn_seconds: float
    cpus: float | None
    cpu_shares: int | None
    """In version 1 of control groups; version 2 has a weight, which the engine makes of the share."""
    cpu_weight: int | None


def unenforced_limits(asked: Asked, found: Findings, denied: Collection[str]) -> Mapping[str, str]:
    """The limits that do not bind, by name, each with what was seen. Where nothing can be seen, those are believed
    that the engine itself has `denied`."""
    seen = {**_resources(asked, found), **_rights(asked, found), **_processor(asked, found)}
    blind = {"cpus": found.cpus, "cpu_shares": _share(found)}
    for name in denied:
        if name in blind and (blind[name] is None or (name == "cpus" and asked.cpus is None)):
            seen[name] = "the engine says that it cannot"
    return {name: reason for name in LIMITS if (reason := seen.get(name))}


def _resources(asked: Asked, found: Findings) -> Mapping[str, str | None]:
    memory, swap = asked.memory_bytes // MEBIBYTE, found.swap_bytes
    swaps = found.host_swap_bytes > 0 and (swap is None or swap > 0)
    return {
        "memory": f"a program got {2 * memory} MiB where {memory} are allowed"
        if found.survives_memory
        else None,
        "swap": "memory can be swapped out beyond its limit" if swaps else None,
        "pids": f"{found.processes} processes ran where {asked.pids_max} are allowed"
        if found.processes > asked.pids_max
        else None,
        "disk": _overfull("/work", found.work_bytes, asked.work_bytes),
        "tmp": _overfull("/tmp", found.tmp_bytes, asked.tmp_bytes),  # noqa: S108 that of the sandbox
    }


def _overfull(directory: str, written: int, allowed: int) -> str | None:
    if written <= allowed:
        return None
    return f"{directory} took more than its {allowed // MEBIBYTE} MiB"


def _rights(asked: Asked, found: Findings) -> Mapping[str, str | None]:
    others = [name for name in found.interfaces if name != "lo"]
    return {
        "network": f"there is a network: {', '.join(others) or 'a route'}"
        if others or found.has_route
        else None,
        "read_only_root": "the root is writable" if found.can_write_root else None,
        "capabilities": f"there are some in {', '.join(found.capabilities)}" if found.capabilities else None,
        "no_new_privileges": None if found.no_new_privileges else "the flag is not set",
        "seccomp": None if found.seccomp else "no filter is set",
        "uid": None
        if list(found.ids) == [asked.uid]
        else f"the ids are {', '.join(map(str, found.ids))}, not {asked.uid} alone",
    }


def _processor(asked: Asked, found: Findings) -> Mapping[str, str | None]:
    cpus, share = None, None
    if asked.cpus is not None:
        most = asked.cpus * (found.burn_seconds + PERIOD_SECONDS) + CLOCK_SECONDS
        if found.cpus is not None and found.cpus > asked.cpus * 1.01:
            cpus = "the control group has no such bound"
        elif found.cpu_seconds > most:
            cpus = f"{found.cpu_seconds:.2f} s of processor were used in {found.burn_seconds:.2f} s"
    if found.cpu_shares not in (None, asked.cpu_shares) or found.cpu_weight == DEFAULT_CPU_WEIGHT:
        share = f"the control group has {_share(found)}"
    return {"cpus": cpus, "cpu_shares": share}


def _share(found: Findings) -> int | None:
    return found.cpu_weight if found.cpu_shares is None else found.cpu_shares
