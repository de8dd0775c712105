"""Change a seccomp profile for setup containers. docs/design/environments.md gives the reasons."""

import json
from functools import cache
from typing import Any

_NO_EFFECT, _EOPNOTSUPP = 0, 95
"""Error numbers of Linux. With 0, the call returns 0, and the kernel does nothing."""
_RULES = (
    (("fallocate",), _EOPNOTSUPP),
    (("sched_setattr", "sched_setparam", "sched_setscheduler", "setpriority"), _NO_EFFECT),
)


@cache
def setup_profile(profile: str | None) -> str | None:
    """Return a profile, as JSON, in which space cannot be allocated without being written, nor priorities be changed.

    None is Docker's default profile, whose text is unknown, so it stays."""
    if profile is None:
        return None
    document = json.loads(profile)
    changed = {name for names, _ in _RULES for name in names}
    kept = [_without(rule, changed) for rule in document.get("syscalls") or ()]
    added = [
        {"names": list(names), "action": "SCMP_ACT_ERRNO", "errnoRet": number} for names, number in _RULES
    ]
    rules = [rule for rule in kept if rule["names"]]
    return json.dumps({**document, "syscalls": [*rules, *added]})


def _without(rule: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """Return a rule for all its system calls but these. An old rule has `name` instead of `names`."""
    present = rule.get("names") or [rule[key] for key in ("name",) if key in rule]
    others = {key: value for key, value in rule.items() if key != "name"}
    return {**others, "names": [name for name in present if name not in names]}
