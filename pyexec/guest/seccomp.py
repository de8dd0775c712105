"""Takes from the programs of a sandbox the system calls by which they could reach their supervisor, or more of the
kernel than a program needs. What Docker's own filter refuses stays refused: every filter of a process counts.

This file travels into the container as text, as the supervisor does: the standard library only, of Python 3.8 and
later. The supervisor runs as the same user as its program, so the kernel lets that one change its limits and its
priority: without memory or descriptors it could not say how the program ended."""

import ctypes
import errno
import os
import struct

PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
ALLOW, FAIL = 0x7FFF0000, 0x00050000
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16
"""Where a filter finds the call's number, its architecture, and its arguments of eight bytes each."""
X32 = 0x40000000
"""Numbers from here on are calls of another kind of program, as are those of another architecture."""

CALLS = {
    "x86_64": {"prlimit64": 302, "setpriority": 141, "sched_setparam": 142, "sched_setscheduler": 144,
               "sched_setaffinity": 203, "sched_setattr": 314, "socket": 41},
    "aarch64": {"prlimit64": 261, "setpriority": 140, "sched_setparam": 118, "sched_setscheduler": 119,
                "sched_setaffinity": 122, "sched_setattr": 274, "socket": 198},
}  # fmt: skip
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
IO_URING = (425, 426, 427)
PRIO_USER = 2
FAMILIES = (1, 2, 10, 16)
"""Kinds of sockets that programs need: local ones, IPv4, IPv6, and the one that asks for network interfaces. Others
lead past the sandbox's network, such as the one to a virtual machine's host, or to rarely used parts of the kernel."""


def instruction(code, value, if_true=0, if_false=0):
    return struct.pack("=HBBI", code, if_true, if_false, value)


def fails(number):
    return instruction(RETURN, FAIL | number)


def on(call, *then):
    """What to do on a call; other calls go on behind it."""
    return [instruction(LOAD, NUMBER), instruction(EQUAL, call, 0, len(then)), *then]


def refuse(call, argument, value):
    """A call with this value as an argument of 32 bits is not permitted."""
    load = instruction(LOAD, ARGUMENTS + 8 * argument)
    return on(call, load, instruction(EQUAL, value, 0, 1), fails(errno.EPERM))


def families(call):
    """Sockets of the known kinds, and no others."""
    count = len(FAMILIES)
    tests = [instruction(EQUAL, family, count - index, 0) for index, family in enumerate(FAMILIES)]
    return on(call, instruction(LOAD, ARGUMENTS), *tests, fails(errno.EAFNOSUPPORT))


def instructions(machine):
    """The filter, as the kernel takes it."""
    calls = CALLS[machine]
    program = [
        instruction(LOAD, ARCHITECTURE),
        instruction(EQUAL, AUDIT[machine], 1, 0),
        fails(errno.ENOSYS),
        instruction(LOAD, NUMBER),
        instruction(AT_LEAST, X32, 0, 1),
        fails(errno.ENOSYS),
    ]
    for call in IO_URING:
        program += on(call, fails(errno.ENOSYS))
    for name in ("prlimit64", "sched_setparam", "sched_setscheduler", "sched_setaffinity", "sched_setattr"):
        program += refuse(calls[name], 0, 1)
    program += refuse(calls["setpriority"], 1, 1) + refuse(calls["setpriority"], 0, PRIO_USER)
    program += families(calls["socket"])
    return program + [instruction(RETURN, ALLOW)]


def seal():
    """Filters this process's calls, and those of all that it will start. Programs of 32 bits, which know other
    numbers, are left to Docker's filter, and so are machines of other kinds."""
    machine = os.uname().machine
    if machine not in CALLS or struct.calcsize("P") != 8:
        return
    code = b"".join(instructions(machine))
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HP", len(code) // 8, ctypes.addressof(buffer))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    zero = ctypes.c_ulong(0)
    prctl(PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), zero, zero, zero)
    if prctl(PR_SET_SECCOMP, ctypes.c_ulong(SECCOMP_MODE_FILTER), program, zero, zero):
        number = ctypes.get_errno()
        if number != errno.EINVAL:  # a kernel without filters: the server has asked whether it may go on so
            raise OSError(number, "prctl(PR_SET_SECCOMP)")
