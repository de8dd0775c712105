"""What a check-up finds, a line for each thing that was looked at."""

import json
from collections.abc import Sequence
from enum import StrEnum

import attrs
from attrs import frozen

from pyexec.errors import ExecutorError


class Verdict(StrEnum):
    """A server works; works, but; does not."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@frozen
class Finding:
    """`text` says what was found, and where that is not well, how to mend it."""

    check: str
    verdict: Verdict
    text: str


def fine(check: str, text: str) -> Finding:
    """Nothing to do."""
    return Finding(check, Verdict.OK, text)


def warning(check: str, text: str) -> Finding:
    """A server works, and its operator should know this."""
    return Finding(check, Verdict.WARNING, text)


def failed(check: str, what: ExecutorError | str, mend: str = "") -> Finding:
    """A server would not work."""
    return Finding(check, Verdict.FAILED, f"{what}; {mend}" if mend else str(what))


def is_well(findings: Sequence[Finding]) -> bool:
    """Whether a server would work."""
    return all(finding.verdict is not Verdict.FAILED for finding in findings)


def as_text(findings: Sequence[Finding]) -> str:
    """For people: a line each, and what it comes to."""
    lines = [f"{finding.verdict:8} {finding.check:10} {_line(finding.text)}" for finding in findings]
    counts = {verdict: sum(f.verdict is verdict for f in findings) for verdict in reversed(Verdict)}
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    return "\n".join([*lines, told])


def as_json(findings: Sequence[Finding]) -> str:
    """For machines: one object."""
    return json.dumps({"ok": is_well(findings), "checks": [attrs.asdict(finding) for finding in findings]})


def _line(text: str) -> str:
    return " ".join(text.split())
