"""Test the filter of system calls: its numbers, and its decisions, in an interpreter of the kernel's instructions."""

import re
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyexec.domain.seccomp.bpf import MACHINES, compiled
from pyexec.domain.seccomp.numbers import IOCTL_REQUESTS, NUMBERS, PRCTL_OPTIONS
from pyexec.domain.seccomp.policy import ALLOW, ALLOWED, CONDITIONAL, PRIVILEGED, CallPolicy, policy_of

HEADERS = {
    "x86_64": (
        "asm/unistd_64.h",
        "x86_64-linux-gnu/asm/unistd_64.h",
    ),
    "aarch64": ("asm-generic/unistd.h",),
}
DEFINITION = re.compile(r"#define __NR(?:3264)?_(\w+)\s+(\d+)$", re.MULTILINE)
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ENOSYS = 38
WORD = 0xFFFFFFFF


def decide(machine: str, number: int, *arguments: int, architecture: int | None = None) -> int | str:
    """Execute the filter for one call, as the kernel does. Return ALLOW or the error number."""
    words = [number & WORD, architecture or ARCHITECTURES[machine], 0, 0]
    for argument in (*arguments, *[0] * (6 - len(arguments))):
        words += [argument & WORD, argument >> 32 & WORD]
    code = list(struct.iter_unpack("=HBBI", compiled(machine)))
    accumulator = position = 0
    while True:
        operation, if_true, if_false, value = code[position]
        position += 1
        match operation:
            case 0x20:
                accumulator = words[value // 4]
            case 0x54:
                accumulator &= value
            case 0x05:
                position += value
            case 0x15:
                position += if_true if accumulator == value else if_false
            case 0x35:
                position += if_true if accumulator >= value else if_false
            case 0x06:
                return ALLOW if value == 0x7FFF0000 else value - 0x00050000
            case _:
                pytest.fail(f"unknown instruction {operation:#x}")


def expected(policy: CallPolicy | None, arguments: tuple[int, ...]) -> int | str:
    for rule in policy.rules if policy else ():
        held = ((arguments[c.argument] & c.mask == c.value) != c.negated for c in rule.conditions)
        if all(held):
            return rule.action
    return policy.otherwise if policy else ENOSYS


@pytest.mark.parametrize("machine", MACHINES)
def test_numbers_are_those_of_the_kernel_headers(machine: str) -> None:
    """The headers are compared where they are installed. Older headers lack the newest calls."""
    for path in (Path("/usr/include") / name for name in HEADERS[machine]):
        defined = dict(DEFINITION.findall(path.read_text())) if path.exists() else {}
        names = {"newfstatat": "fstatat"} if "generic" in path.parts[-2] else {}
        for call, number in NUMBERS[machine].items():
            assert int(defined.get(names.get(call, call), number)) == number, call


def test_options_of_prctl_are_those_of_the_kernel_headers() -> None:
    header = Path("/usr/include/linux/prctl.h")
    text = header.read_text() if header.exists() else ""
    defined = dict(re.findall(r"#\s*define\s+PR_(\w+)\s+(0x[0-9a-fA-F]+|\d+)\b", text))
    for option, number in PRCTL_OPTIONS.items():
        assert int(defined.get(option, str(number)), 0) == number, option
    assert len(set(PRCTL_OPTIONS.values())) == len(PRCTL_OPTIONS)


PLAIN_REQUEST = re.compile(r"#\s*define\s+(\w+)\s+(0x[0-9A-Fa-f]+)\b")
CODED_REQUEST = re.compile(r"#define\s+(\w+)\s+(_IO[RW])\('?(\w+)'?,\s*(\w+),\s*([\w ]+)\)")
DIRECTIONS = {"_IOW": 1, "_IOR": 2}
SIZES = {"int": 4, "unsigned int": 4, "long": 8, "struct termios2": 44, "struct file_clone_range": 32}


def test_requests_of_ioctl_are_those_of_the_kernel_headers() -> None:
    names = ("asm-generic/ioctls.h", "asm-generic/sockios.h", "linux/sockios.h", "linux/fs.h")
    headers = [Path("/usr/include") / name for name in names]
    text = "".join(header.read_text() for header in headers if header.exists())
    defined = {request: int(number, 0) for request, number in PLAIN_REQUEST.findall(text)}
    for request, direction, kind, number, argument in CODED_REQUEST.findall(text):
        if request in IOCTL_REQUESTS:
            letter = int(kind, 0) if kind.startswith("0x") else ord(kind)
            size = SIZES[argument]
            defined[request] = DIRECTIONS[direction] << 30 | size << 16 | letter << 8 | int(number, 0)
    for request, number in IOCTL_REQUESTS.items():
        assert defined.get(request, number) == number, request
    if all(header.exists() for header in headers):
        assert IOCTL_REQUESTS.keys() - defined.keys() == {"TIOCGPTPEER"}  # its definition has no argument
    assert len(set(IOCTL_REQUESTS.values())) == len(IOCTL_REQUESTS)


@pytest.mark.parametrize("machine", MACHINES)
def test_each_number_belongs_to_one_call(machine: str) -> None:
    numbers = NUMBERS[machine]
    assert len(set(numbers.values())) == len(numbers)
    assert set(NUMBERS["aarch64"]) < set(NUMBERS["x86_64"]) == ALLOWED | PRIVILEGED | set(CONDITIONAL)
    assert not ALLOWED & PRIVILEGED
    assert not (ALLOWED | PRIVILEGED) & set(CONDITIONAL)


@pytest.mark.parametrize("machine", MACHINES)
def test_each_number_is_decided_by_its_policy(machine: str) -> None:
    names = {number: name for name, number in NUMBERS[machine].items()}
    for number in [*range(1000), 0x40000000, 0x40000001, WORD]:
        zeros = (0,) * 6
        policy = policy_of(names[number]) if number in names else None
        assert decide(machine, number, *zeros) == expected(policy, zeros), names.get(number, number)


VALUES = sorted(
    {
        condition.value + delta & 0xFFFFFFFFFFFFFFFF
        for policy in CONDITIONAL.values()
        for rule in policy.rules
        for condition in rule.conditions
        for delta in (0, 1, 1 << 32)
    }
)


@given(
    machine=st.sampled_from(MACHINES),
    call=st.sampled_from(sorted(CONDITIONAL)),
    arguments=st.tuples(*[st.sampled_from(VALUES)] * 6),
)
def test_arguments_are_decided_by_the_policy(machine: str, call: str, arguments: tuple[int, ...]) -> None:
    number = NUMBERS[machine][call]
    assert decide(machine, number, *arguments) == expected(CONDITIONAL[call], arguments)


@pytest.mark.parametrize(
    ("call", "arguments", "action"),
    [
        ("read", (0,), ALLOW),
        ("mount", (0,), 1),
        ("socket", (1, 2, 0), ALLOW),
        ("socket", (2, 1 | 0o2004000, 6), ALLOW),
        ("socket", (2, 1, 262), 93),
        ("socket", (2, 3, 1), 1),
        ("socket", (16, 3, 0), ALLOW),
        ("socket", (16, 3, 15), 93),
        ("socket", (40, 1, 0), 97),
        ("setsockopt", (3, 1, 2), ALLOW),
        ("setsockopt", (3, 1, 26), 1),
        ("setsockopt", (3, 6, 26), ALLOW),
        ("setsockopt", (3, 1, 8), 0),
        ("setsockopt", (3, 6, 31), 92),
        ("mmap", (0, 4096, 3, 0x22), ALLOW),
        ("mmap", (0, 4096, 3, 0x40022), 12),
        ("clone", (0x003D0F00,), ALLOW),
        ("clone", (0x10000011,), 1),
        ("clone", (0x00010000,), 1),
        ("close_range", (3, WORD, 0), ALLOW),
        ("close_range", (3, WORD, 4), ALLOW),
        ("close_range", (3, WORD, 6), 22),
        ("fcntl", (3, 6), ALLOW),
        ("fcntl", (3, 37), 22),
        ("fcntl", (3, 38), 22),
        ("prctl", (4, 0), 0),
        ("prctl", (0x53564D41, 0), 22),
        ("setxattr", (), 95),
        ("prlimit64", (0, 4, 0, 0x7F0000000000), ALLOW),
        ("prlimit64", (0, 4, 0x7F0000000000, 0), 0),
        ("prlimit64", (0, 4, 0x7F0000000000, 0x7F0000000008), 1),
        ("prlimit64", (0, 7, 0x7F0000000000, 0), ALLOW),
        ("prlimit64", (1, 7, 0, 0x7F0000000000), 1),
        ("setrlimit", (4, 0x7F0000000000), 0),
        ("sync", (), 0),
        ("fsync", (3,), 0),
        ("msync", (0x7F0000000000, 4096, 4), 0),
        ("msync", (0x7F0000000000, 4096, 1), ALLOW),
        ("ioprio_set", (1, 0, 0), ALLOW),
        ("ioprio_set", (3, 1000, 0), 1),
        ("setpriority", (0, 1, 19), 1),
    ],
)
def test_single_decisions(call: str, arguments: tuple[int, ...], action: int | str) -> None:
    for machine in MACHINES:
        assert decide(machine, NUMBERS[machine][call], *arguments) == action


def test_calls_of_other_architectures_are_refused() -> None:
    for machine, other in zip(MACHINES, reversed(MACHINES), strict=True):
        assert decide(machine, NUMBERS[machine]["read"], architecture=ARCHITECTURES[other]) == ENOSYS


@pytest.mark.parametrize("machine", MACHINES)
def test_no_call_needs_many_instructions_to_find(machine: str) -> None:
    """The kernel refuses filters of more than 4,096 instructions; a program waits for each one on older kernels."""
    assert len(compiled(machine)) // 8 < 1000
