"""Test how a seccomp profile is changed for setups."""

import json

import pytest

from pyexec.adapters.docker.config import setup_profile


def test_dockers_default_profile_stays() -> None:
    assert setup_profile(None) is None


def test_rules_of_other_calls_stay_and_changed_calls_have_one_rule() -> None:
    allow = {"names": ["read", "fallocate", "setpriority"], "action": "SCMP_ACT_ALLOW"}
    alone = {"name": "fallocate", "action": "SCMP_ACT_ALLOW", "args": []}
    old = {"name": "write", "action": "SCMP_ACT_ALLOW"}
    given = {"defaultAction": "SCMP_ACT_ERRNO", "archMap": [], "syscalls": [allow, alone, old]}
    changed = json.loads(setup_profile(json.dumps(given)) or "")
    assert {**changed, "syscalls": given["syscalls"]} == given
    assert changed["syscalls"][:2] == [
        {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["write"], "action": "SCMP_ACT_ALLOW"},
    ]
    rules = {name: rule for rule in changed["syscalls"][2:] for name in rule["names"]}
    assert rules["fallocate"] == {"names": ["fallocate"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}
    assert rules["setpriority"]["errnoRet"] == 0


def test_a_profile_without_rules_gets_them() -> None:
    changed = json.loads(setup_profile(json.dumps({"defaultAction": "SCMP_ACT_ALLOW"})) or "")
    assert {name for rule in changed["syscalls"] for name in rule["names"]} >= {"fallocate", "setpriority"}


@pytest.mark.parametrize(
    ("refused", "uid", "allowed"),
    [
        (range(100000, 101000), 0, True),
        (range(100000, 101000), 65534, True),
        (range(100000, 101000), 100000, False),
        (range(100000, 101000), (1 << 32) + 100999, False),
        (range(100000, 101000), 0xFFFFFFFF, True),
        (range(60000, 61000), 999, True),
        (range(60000, 61000), 65534, True),
        (range(60000, 61000), 60500, False),
        (range(65000, 65536), 65534, False),
    ],
)
def test_a_setup_cannot_take_the_user_ids_of_sandboxes(refused: range, uid: int, allowed: bool) -> None:
    given = json.dumps({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["setresuid"]}]})
    rules = json.loads(setup_profile(given, refused) or "")["syscalls"]
    for call, count in (("setuid", 1), ("setfsuid", 1), ("setreuid", 2), ("setresuid", 3)):
        found = [rule["args"] for rule in rules if call in rule["names"]]
        assert all(len(arguments) == count for arguments in found)
        for other in (0, 0xFFFFFFFF):
            values = [other] * (count - 1) + [uid]
            held = [all(values[e["index"]] & e["value"] == e["valueTwo"] for e in each) for each in found]
            assert any(held) == allowed
