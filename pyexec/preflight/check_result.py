"""The results of preflight checks, and how `--check` prints them."""

import json
from collections.abc import Sequence
from enum import StrEnum

import attrs
from attrs import frozen

from pyexec.errors import ExecutorError


class Verdict(StrEnum):
    """The verdict of a check. A server can start if no check FAILED."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@frozen
class CheckResult:
    """The result of one check. `text` says what was found and, if there is a problem, how to fix it."""

    check: str
    verdict: Verdict
    text: str


def ok(check: str, text: str) -> CheckResult:
    """Return the result of a check that passed."""
    return CheckResult(check, Verdict.OK, text)


def warning(check: str, text: str) -> CheckResult:
    """Return the result of a check that found a problem with which a server can still start."""
    return CheckResult(check, Verdict.WARNING, text)


def failed(check: str, problem: ExecutorError | str, fix: str = "") -> CheckResult:
    """Return the result of a check that failed: a server could not work."""
    return CheckResult(check, Verdict.FAILED, f"{problem}; {fix}" if fix else str(problem))


def all_passed(results: Sequence[CheckResult]) -> bool:
    """Return True if no check failed, so that a server could work."""
    return all(result.verdict is not Verdict.FAILED for result in results)


def as_text(results: Sequence[CheckResult]) -> str:
    """Format the results for people: one line each, and a line with the totals."""
    lines = [f"{result.verdict:8} {result.check:10} {_one_line(result.text)}" for result in results]
    counts = {verdict: sum(r.verdict is verdict for r in results) for verdict in reversed(Verdict)}
    totals = ", ".join(_count(count, verdict) for verdict, count in counts.items() if count)
    return "\n".join([*lines, totals])


def as_json(results: Sequence[CheckResult]) -> str:
    """Format the results for programs: one JSON object."""
    return json.dumps({"ok": all_passed(results), "checks": [attrs.asdict(result) for result in results]})


def _count(count: int, verdict: Verdict) -> str:
    return f"{count} {verdict}{'s' if verdict is Verdict.WARNING and count > 1 else ''}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
