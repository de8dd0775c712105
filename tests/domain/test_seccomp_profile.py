"""Test the seccomp profile for Docker, in an interpreter of its rules: it agrees with the supervisor's filter."""

import json
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from pyexec.adapters.docker.config import SecurityOptions
from pyexec.domain.seccomp.policy import (
    AF_NETLINK,
    ALLOW,
    ALLOWED,
    ATTRIBUTES,
    CONDITIONAL,
    FLUSHES,
    NETLINK_SOCK_DIAG,
    PR_SET_DUMPABLE,
    PRIVILEGED,
    CallPolicy,
)
from pyexec.domain.seccomp.profile import docker_profile

WIDER = {
    "sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler", "setpriority",
}  # fmt: skip
"""Calls that the profile allows with every argument."""
LARGEST = {
    "setrlimit": [(0, 15)],
    "prlimit64": [(1, 15)],
    "setsockopt": [(2, 127)],
    "getsockopt": [(1, 511), (2, 127)],
    "fcntl": [(1, 2047)],
    "fadvise64": [(3, 7)],
    "madvise": [(2, 127)],
}
"""The largest resource or option that the profile allows. The kernel has none above it."""
SUPERVISOR = 1
FILTER = 22
SMALL = [
    *range(64),
    0x400,
    0x5411,
    0x5412,
    0x8946,
    0x80015411,
    0xC0C0583B,
    0x80086601,
    0x80096601,
    0x8982,
    0x10000,
    0x10400,
    0x20000,
    0x20008,
    0x40000,
    0x40022,
    0x7E020000,
    0x80048982,
    0x10000011,
    0xFFFFFFFF,
    1 << 32,
    1 << 40,
]


def decide(call: str, arguments: tuple[int, ...], *, for_setup: bool = False) -> int | str:
    """Return ALLOW or the error number of a call under the profile. Rules of one call do not overlap."""
    profile = json.loads(docker_profile(for_setup=for_setup))
    found = {action(rule) for rule in profile["syscalls"] if call in rule["names"] and holds(rule, arguments)}
    assert len(found) <= 1, (call, arguments)
    return found.pop() if found else 1


def holds(rule: Any, arguments: tuple[int, ...]) -> bool:
    for each in rule["args"]:
        value = arguments[each["index"]]
        if each["op"] == "SCMP_CMP_MASKED_EQ":
            if value & each["value"] != each["valueTwo"]:
                return False
        elif value == each["value"]:
            return False
    return True


def bits(argument: int) -> int:
    return argument & 0xFFFFFFFF


def action(rule: Any) -> int | str:
    return ALLOW if rule["action"] == "SCMP_ACT_ALLOW" else int(rule["errnoRet"])


def intended(policy: CallPolicy, arguments: tuple[int, ...]) -> int | str:
    for rule in policy.rules:
        if all((arguments[c.argument] & c.mask == c.value) != c.negated for c in rule.conditions):
            return rule.action
    return policy.otherwise


@given(call=st.sampled_from(sorted(CONDITIONAL)), arguments=st.tuples(*[st.sampled_from(SMALL)] * 6))
def test_the_profile_allows_what_the_filter_allows(call: str, arguments: tuple[int, ...]) -> None:
    filtered = intended(CONDITIONAL[call], arguments)
    profiled = decide(call, arguments)
    if call in WIDER or (call == "prctl" and bits(arguments[0]) == PR_SET_DUMPABLE):
        assert profiled == ALLOW
    elif (call, bits(arguments[0]), bits(arguments[2])) == ("socket", AF_NETLINK, NETLINK_SOCK_DIAG):
        assert profiled == ALLOW  # for the supervisor, before it installs its filter
    elif SUPERVISOR in arguments[:2] and call in ("prlimit64", "ioprio_set"):
        assert profiled in (ALLOW, filtered, 0, 1)
    elif any(bits(arguments[index]) > maximum for index, maximum in LARGEST.get(call, ())):
        assert profiled == 1
    else:
        assert (profiled == ALLOW) == (filtered == ALLOW)
        assert (profiled == 0) == (filtered == 0)


def test_only_calls_of_the_policy_are_allowed() -> None:
    rules = json.loads(docker_profile(for_setup=True))["syscalls"]
    allowed = {name for rule in rules if action(rule) == ALLOW for name in rule["names"]}
    assert allowed == ALLOWED | set(CONDITIONAL) - set(FLUSHES)
    assert not PRIVILEGED & {name for rule in rules for name in rule["names"]}


@pytest.mark.parametrize(("for_setup", "expected"), [(False, ALLOW), (True, 22)])
def test_only_sandboxes_may_add_a_filter(for_setup: bool, expected: int | str) -> None:
    assert decide("prctl", (FILTER, 2, 0, 0, 0, 0), for_setup=for_setup) == expected


@pytest.mark.parametrize(("for_setup", "expected"), [(False, 95), (True, ALLOW)])
def test_only_setups_may_set_attributes(for_setup: bool, expected: int | str) -> None:
    assert {decide(call, (0,) * 6, for_setup=for_setup) for call in ATTRIBUTES} == {expected}


@pytest.mark.parametrize(("for_setup", "expected"), [(False, ALLOW), (True, 93)])
def test_only_sandboxes_may_list_sockets(for_setup: bool, expected: int | str) -> None:
    arguments = (AF_NETLINK, 3, NETLINK_SOCK_DIAG, 0, 0, 0)
    assert decide("socket", arguments, for_setup=for_setup) == expected


def test_engines_without_seccomp_and_other_architectures_use_their_own_profile() -> None:
    options = SecurityOptions(sandbox_profile="{}", setup_profile="{}", replaceable=True)
    assert options.on_engine("arm64", has_seccomp=True) == options
    for engine in (
        options.on_engine("amd64", has_seccomp=False),
        options.on_engine("s390x", has_seccomp=True),
    ):
        assert (engine.sandbox_profile, engine.setup_profile) == (None, None)
    chosen = evolve(options, replaceable=False)
    assert chosen.on_engine("amd64", has_seccomp=False) == chosen


def test_no_argument_is_compared_twice_in_a_rule() -> None:
    """libseccomp takes such a comparison for an alternative."""
    for rule in json.loads(docker_profile(for_setup=False))["syscalls"]:
        indexes = [each["index"] for each in rule["args"]]
        assert len(indexes) == len(set(indexes))
