"""Test how a seccomp profile is changed for setups."""

import json

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
