"""Write the policy as a seccomp profile of Docker, which also applies to setups and to images with another Python.

Docker's format compares each argument once and knows no ranges, so the profile is slightly wider than the supervisor's
filter: see `_EVERY_ARGUMENT`. `tests/domain/test_seccomp_profile.py` lists the differences."""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final

from pyexec.domain.seccomp import policy
from pyexec.domain.seccomp.policy import ALLOW, ALLOWED, CONDITIONAL, INT, Action, Condition, equals

_EVERY_ARGUMENT: Final = frozenset(
    {
        "sched_setaffinity",
        "sched_setattr",
        "sched_setparam",
        "sched_setscheduler",
        "setpriority",
    }
)
"""Calls that the profile allows with every argument: only the supervisor's filter compares theirs."""
_UNKNOWN_CALLS = """
    clone3 fsconfig fsmount fsopen fspick futex_waitv io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit
    io_uring_enter io_uring_register io_uring_setup landlock_add_rule landlock_create_ruleset landlock_restrict_self
    memfd_secret modify_ldt mount_setattr move_mount open_tree process_mrelease quotactl_fd remap_file_pages seccomp
    vmsplice
"""
_UNKNOWN: Final = frozenset(_UNKNOWN_CALLS.split())
"""Calls that fail with ENOSYS. Other calls that the policy does not name fail with EPERM, Docker's default."""
_OPTIONS_MAX, _LIMITS_MAX, _COMMANDS_MAX, _LEVELS_MAX, _NETLINK_MAX = 128, 16, 2048, 512, 32
_ADVICE_MAX, _FILE_ADVICE_MAX = 128, 8
"""Socket options, resource limits, commands of `fcntl`, levels of socket options, protocols of netlink, and advice
about memory and files have smaller numbers. Larger ones are refused."""
_ARCHITECTURES = (("SCMP_ARCH_X86_64", ("SCMP_ARCH_X32",)), ("SCMP_ARCH_AARCH64", ()))
"""Without their 32-bit forms: there, `socketcall` passes the arguments of `socket` in memory, which no filter reads."""

Arguments = Sequence[Mapping[str, Any]]


@cache
def docker_profile(*, for_setup: bool) -> str:
    """Return the profile as JSON, for Docker 20.10 or later.

    In a sandbox, processes may add a filter and ask the kernel about sockets, as the supervisor does; its filter then
    allows no other process to do so. In a setup, they may set attributes of files instead."""
    rules = [
        _rule(sorted(ALLOWED | _EVERY_ARGUMENT), ALLOW),
        _rule(sorted(_UNKNOWN), policy.ENOSYS),
        *(_rule([call], action, case) for call, action, case in _conditional(for_setup)),
    ]
    architectures = [
        {"architecture": name, "subArchitectures": list(others)} for name, others in _ARCHITECTURES
    ]
    return json.dumps({"defaultAction": "SCMP_ACT_ERRNO", "archMap": architectures, "syscalls": rules})


def _conditional(for_setup: bool) -> Iterator[tuple[str, Action, Arguments]]:
    for call in ("socket", "socketpair", "personality", "prctl", "ioctl"):
        for rule in CONDITIONAL[call].rules:
            if rule.action == ALLOW:
                yield call, ALLOW, _arguments(rule.conditions)
    yield from _netlink(for_setup)
    yield "prctl", policy.EINVAL if for_setup else ALLOW, _arguments([equals(0, policy.PR_SET_SECCOMP)])
    for call, argument, bits, action in (
        ("mmap", 3, policy.MAP_HUGETLB, policy.ENOMEM),
        ("msync", 2, policy.MS_SYNC, policy.NO_EFFECT),
        ("shmget", 2, policy.SHM_HUGETLB, policy.ENOMEM),
        ("memfd_create", 1, policy.MFD_HUGETLB, policy.EINVAL),
        ("close_range", 2, policy.CLOSE_RANGE_UNSHARE, policy.EINVAL),
    ):
        yield call, ALLOW, [_masked(argument, bits, 0)]
        yield call, action, [_masked(argument, bits, bits)]
    threads = policy.CLONE_THREAD | policy.CLONE_FILES
    for flags in (0, policy.CLONE_FILES, threads):
        yield "clone", ALLOW, [_masked(0, policy.NEW_NAMESPACES | threads, flags)]
    for block in _blocks(1, 0, _COMMANDS_MAX, set(policy.F_OFD_LOCKS)):
        yield "fcntl", ALLOW, [block]
    for command in policy.F_OFD_LOCKS:
        yield "fcntl", policy.EINVAL, _arguments([equals(1, command)])
    for block in _blocks(2, 0, _ADVICE_MAX, set(policy.REFUSED_ADVICE)):
        yield "madvise", ALLOW, [block]
    for advice in policy.REFUSED_ADVICE:
        yield "madvise", policy.EINVAL, _arguments([equals(2, advice)])
    for block in _blocks(3, 0, _FILE_ADVICE_MAX, {policy.FADV_DONTNEED}):
        yield "fadvise64", ALLOW, [block]
    yield "fadvise64", policy.NO_EFFECT, _arguments([equals(3, policy.FADV_DONTNEED)])
    yield "ioprio_set", ALLOW, _arguments([equals(0, policy.IOPRIO_WHO_PROCESS)])
    yield from _socket_options()
    yield from _pages_of_sockets()
    yield from _limits()
    yield from ((call, policy.NO_EFFECT, ()) for call in policy.FLUSHES)
    yield from ((call, ALLOW if for_setup else policy.EOPNOTSUPP, ()) for call in policy.ATTRIBUTES)


def _netlink(for_setup: bool) -> Iterator[tuple[str, Action, Arguments]]:
    netlink = _arguments([equals(0, policy.AF_NETLINK)])
    allowed = {policy.NETLINK_ROUTE} if for_setup else {policy.NETLINK_ROUTE, policy.NETLINK_SOCK_DIAG}
    for protocol in allowed - {policy.NETLINK_ROUTE}:
        yield "socket", ALLOW, [*netlink, *_arguments([equals(2, protocol)])]
    for block in _blocks(2, 0, _NETLINK_MAX, allowed):
        yield "socket", policy.EPROTONOSUPPORT, [*netlink, block]


def _socket_options() -> Iterator[tuple[str, Action, Arguments]]:
    ignored = [(policy.SOL_SOCKET, option) for option in policy.IGNORED_OPTIONS]
    for level in policy.SOCKET_LEVELS:
        others = {option for of, option in (*policy.REFUSED_OPTIONS, *ignored) if of == level}
        for block in _blocks(2, 0, _OPTIONS_MAX, others):
            yield "setsockopt", ALLOW, [*_arguments([equals(1, level)]), block]
    for level, option in ignored:
        yield "setsockopt", policy.NO_EFFECT, _arguments([equals(1, level), equals(2, option)])


def _pages_of_sockets() -> Iterator[tuple[str, Action, Arguments]]:
    """Allow `getsockopt` except for pages, and calls that move data only with a position, which no socket has."""
    for level in _blocks(1, 0, _LEVELS_MAX, {policy.IPPROTO_TCP}):
        yield "getsockopt", ALLOW, [level, *_blocks(2, 0, _OPTIONS_MAX, set())]
    tcp, pages = equals(1, policy.IPPROTO_TCP), equals(2, policy.TCP_ZEROCOPY_RECEIVE)
    for block in _blocks(2, 0, _OPTIONS_MAX, {policy.TCP_ZEROCOPY_RECEIVE}):
        yield "getsockopt", ALLOW, [*_arguments([tcp]), block]
    yield "getsockopt", policy.ENOPROTOOPT, _arguments([tcp, pages])
    yield "sendfile", ALLOW, [_differs(2, 0)]
    yield "sendfile", policy.EINVAL, [_masked(2, policy.POINTER, 0)]
    yield "splice", ALLOW, [_differs(1, 0)]
    yield "splice", ALLOW, [_masked(1, policy.POINTER, 0), _differs(3, 0)]
    yield "splice", policy.EINVAL, [_masked(argument, policy.POINTER, 0) for argument in (1, 3)]


def _limits() -> Iterator[tuple[str, Action, Arguments]]:
    """Allow all limits except that of core dumps, which can be read only."""
    for call, argument in (("setrlimit", 0), ("prlimit64", 1)):
        yield from (
            (call, ALLOW, [block]) for block in _blocks(argument, 0, _LIMITS_MAX, {policy.RLIMIT_CORE})
        )
    core = _arguments([equals(1, policy.RLIMIT_CORE)])
    yield "prlimit64", ALLOW, [*core, _masked(2, policy.POINTER, 0)]
    yield "prlimit64", policy.NO_EFFECT, [*core, _differs(2, 0), _masked(3, policy.POINTER, 0)]
    yield "setrlimit", policy.NO_EFFECT, _arguments([equals(0, policy.RLIMIT_CORE)])


def _blocks(argument: int, start: int, size: int, refused: set[int]) -> Iterator[Mapping[str, Any]]:
    """Yield comparisons that hold for the `size` numbers from `start`, except the refused ones. `size` is a power of
    two."""
    if not any(start <= number < start + size for number in refused):
        yield _masked(argument, INT & ~(size - 1), start)
    elif size > 1:
        yield from _blocks(argument, start, size // 2, refused)
        yield from _blocks(argument, start + size // 2, size // 2, refused)


def _arguments(conditions: Sequence[Condition]) -> Arguments:
    return [_masked(each.argument, each.mask, each.value) for each in conditions]


def _masked(argument: int, mask: int, value: int) -> Mapping[str, Any]:
    return {"index": argument, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}


def _differs(argument: int, value: int) -> Mapping[str, Any]:
    return {"index": argument, "value": value, "op": "SCMP_CMP_NE"}


def _rule(calls: Sequence[str], action: Action, arguments: Arguments = ()) -> Mapping[str, Any]:
    if action == ALLOW:
        return {"names": calls, "action": "SCMP_ACT_ALLOW", "args": arguments}
    return {"names": calls, "action": "SCMP_ACT_ERRNO", "errnoRet": action, "args": arguments}
