"""Block system calls with which a program could harm its supervisor, or that expose rarely used parts of the kernel.

The supervisor runs as the same user as its program. Without this filter, the kernel would let the program change the
supervisor's resource limits and priority. Docker's own filter still applies: the kernel applies all filters.

Part of the supervisor (see bootstrap.py)."""

import ctypes
import errno
import os
import struct

PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
ALLOW, FAIL = 0x7FFF0000, 0x00050000
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16
"""Offsets in the data of a filter: the call's number, its architecture, and its arguments of eight bytes each."""
X32 = 0x40000000
"""System calls of the x32 ABI have numbers from here on."""

CALLS = {
    "x86_64": {"prlimit64": 302, "setpriority": 141, "sched_setparam": 142, "sched_setscheduler": 144,
               "sched_setaffinity": 203, "sched_setattr": 314, "socket": 41, "setsockopt": 54},
    "aarch64": {"prlimit64": 261, "setpriority": 140, "sched_setparam": 118, "sched_setscheduler": 119,
                "sched_setaffinity": 122, "sched_setattr": 274, "socket": 198, "setsockopt": 208},
}  # fmt: skip
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
IO_URING = (425, 426, 427)
PRIO_USER = 2
SOL_SOCKET, SO_SNDBUF, SO_RCVBUF = 1, 7, 8
FAMILIES = (1, 2, 10, 16)
"""Allowed socket families: Unix, IPv4, IPv6, and netlink, which lists network interfaces. Others can bypass the
sandbox's network (vsock reaches the host of a virtual machine), or use rarely tested parts of the kernel."""


def instruction(code, value, if_true=0, if_false=0):
    return struct.pack("=HBBI", code, if_true, if_false, value)


def return_errno(number):
    return instruction(RETURN, FAIL | number)


def on_call(call, *then):
    """Run these instructions for one system call, and skip them for all others."""
    return [instruction(LOAD, NUMBER), instruction(EQUAL, call, 0, len(then)), *then]


def deny(call, argument, value):
    """Let a call fail with EPERM if this argument (of 32 bits) has this value."""
    load = instruction(LOAD, ARGUMENTS + 8 * argument)
    return on_call(call, load, instruction(EQUAL, value, 0, 1), return_errno(errno.EPERM))


def allow_families(call):
    """Let `socket` fail for all families except the allowed ones."""
    count = len(FAMILIES)
    tests = [instruction(EQUAL, family, count - index, 0) for index, family in enumerate(FAMILIES)]
    return on_call(call, instruction(LOAD, ARGUMENTS), *tests, return_errno(errno.EAFNOSUPPORT))


def ignore_buffer_sizes(call):
    """Let `setsockopt` succeed without effect for the sizes of buffers, which sockets.py has to know."""
    return on_call(
        call,
        instruction(LOAD, ARGUMENTS + 8),
        instruction(EQUAL, SOL_SOCKET, 0, 4),
        instruction(LOAD, ARGUMENTS + 16),
        instruction(EQUAL, SO_SNDBUF, 1, 0),
        instruction(EQUAL, SO_RCVBUF, 0, 1),
        return_errno(0),
    )


def build_filter(machine):
    """Return the filter's instructions, in the kernel's format."""
    calls = CALLS[machine]
    program = [
        instruction(LOAD, ARCHITECTURE),
        instruction(EQUAL, AUDIT[machine], 1, 0),
        return_errno(errno.ENOSYS),
        instruction(LOAD, NUMBER),
        instruction(AT_LEAST, X32, 0, 1),
        return_errno(errno.ENOSYS),
    ]
    for call in IO_URING:
        program += on_call(call, return_errno(errno.ENOSYS))
    for name in ("prlimit64", "sched_setparam", "sched_setscheduler", "sched_setaffinity", "sched_setattr"):
        program += deny(calls[name], 0, 1)
    program += deny(calls["setpriority"], 1, 1) + deny(calls["setpriority"], 0, PRIO_USER)
    program += allow_families(calls["socket"])
    program += ignore_buffer_sizes(calls["setsockopt"])
    return program + [instruction(RETURN, ALLOW)]


def install_filter():
    """Filter the system calls of this process and of all processes that it starts.

    Other architectures and 32-bit Pythons, whose calls have other numbers, keep Docker's filter only."""
    machine = os.uname().machine
    if machine not in CALLS or struct.calcsize("P") != 8:
        return
    code = b"".join(build_filter(machine))
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HP", len(code) // 8, ctypes.addressof(buffer))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    zero = ctypes.c_ulong(0)
    prctl(PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), zero, zero, zero)
    if prctl(PR_SET_SECCOMP, ctypes.c_ulong(SECCOMP_MODE_FILTER), program, zero, zero):
        number = ctypes.get_errno()
        # EINVAL: this kernel has no filters. The isolation check decides whether that is accepted.
        if number != errno.EINVAL:
            raise OSError(number, "prctl(PR_SET_SECCOMP)")
