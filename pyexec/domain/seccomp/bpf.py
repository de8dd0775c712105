"""Compile the policy into a filter of the kernel: a program of classic BPF.

A call's number is found by binary search in ranges of calls with equal policies. Linux 5.11 and later also remember for
which numbers the filter always allows the call, and then do not execute the filter."""

import struct
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Final

from pyexec.domain.seccomp.numbers import NUMBERS
from pyexec.domain.seccomp.policy import ALLOW, ENOSYS, Action, CallPolicy, Condition, Rule, policy_of

LOAD, AND, EQUAL, AT_LEAST, JUMP, RETURN = 0x20, 0x54, 0x15, 0x35, 0x05, 0x06
_RETURN_ALLOW, _RETURN_ERRNO = 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
"""Offsets in the data of a filter: the call's number, its architecture, and its arguments of eight bytes each."""
_AUDIT: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
MACHINES: Final = tuple(_AUDIT)
_NEAR = 255
"""The longest distance of a conditional jump."""
_UNKNOWN = CallPolicy((), ENOSYS)

Instruction = tuple[int, int, int, int]
"""The code, the jumps if true and if false, and the value, as in the kernel's `struct sock_filter`."""
Code = list[Instruction]


@cache
def compiled(machine: str) -> bytes:
    """Return the filter for a machine, in the kernel's format."""
    check: Code = [
        (LOAD, 0, 0, _ARCHITECTURE),
        (EQUAL, 1, 0, _AUDIT[machine]),
        _return(ENOSYS),
        (LOAD, 0, 0, _NUMBER),
    ]
    return b"".join(struct.pack("=HBBI", *each) for each in check + _search(_ranges(machine)))


def _ranges(machine: str) -> list[tuple[int, CallPolicy]]:
    """Return the first number of each range of calls with equal policies. Numbers outside the table are unknown."""
    policies = {number: policy_of(call) or _UNKNOWN for call, number in NUMBERS[machine].items()}
    ranges: list[tuple[int, CallPolicy]] = []
    for number in range(max(policies) + 2):
        policy = policies.get(number, _UNKNOWN)
        if not ranges or ranges[-1][1] != policy:
            ranges.append((number, policy))
    return ranges


def _search(ranges: Sequence[tuple[int, CallPolicy]]) -> Code:
    """Return a binary search for the range of the number that is loaded."""
    if len(ranges) == 1:
        return _decide(ranges[0][1])
    half = len(ranges) // 2
    below, above = _search(ranges[:half]), _search(ranges[half:])
    middle = ranges[half][0]
    if len(below) <= _NEAR:
        return [(AT_LEAST, len(below), 0, middle), *below, *above]
    return [(AT_LEAST, 0, 1, middle), (JUMP, 0, 0, len(below)), *below, *above]


def _decide(policy: CallPolicy) -> Code:
    code = [instruction for rule in policy.rules for instruction in _try(rule)]
    return [*code, _return(policy.otherwise)]


def _try(rule: Rule) -> Code:
    """Return the rule's action if all its conditions hold; otherwise continue behind it."""
    code = [_return(rule.action)]
    for load, value, negated in reversed([check for each in rule.conditions for check in _checks(each)]):
        skip = len(code)
        code = [*load, (EQUAL, skip, 0, value) if negated else (EQUAL, 0, skip, value), *code]
    return code


def _checks(condition: Condition) -> Iterator[tuple[Code, int, bool]]:
    """Yield how to load each half of the argument that the mask covers, and the value to compare with."""
    for half in (0, 1):
        mask, value = (number >> 32 * half & 0xFFFFFFFF for number in (condition.mask, condition.value))
        if mask:
            load: Code = [(LOAD, 0, 0, _ARGUMENTS + 8 * condition.argument + 4 * half)]
            if mask != 0xFFFFFFFF:
                load.append((AND, 0, 0, mask))
            yield load, value, condition.negated


def _return(action: Action) -> Instruction:
    return RETURN, 0, 0, _RETURN_ALLOW if action == ALLOW else _RETURN_ERRNO | action
