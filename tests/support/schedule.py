"""Which tests run on one worker, in which order, what workers share, and how long each folder took."""

import fcntl
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.support.paths import ROOT

LONGEST_FIRST = (
    "tests/cluster",
    "tests/dev",
    "tests/web/test_packages.py",
    "tests/docs",
    "tests/image",
    "tests/cli",
    "tests/web",
    "tests/sandbox",
    "tests/isolation",
    "tests/contract",
)
"""Workers take units in this order, then the rest, so that no long unit begins when the others are done."""
TOGETHER = ("tests/image/", "tests/cluster/")
"""Folders that run on one worker, because their files share slow fixtures or need much processor time."""
PHASES = ("passed", "failed", "error", "")
"""Lists of pytest's statistics that hold reports with a duration; the last one is of setups and teardowns."""


class UnitScheduling(LoadScopeScheduling):
    """Gives each worker whole units of tests, in the order of collection.

    A unit is a file, because its tests share servers. In a file marked `independent` each test is one of its own, and
    the files of a folder in `TOGETHER` are one."""

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        return unit_of(nodeid)


def unit_of(nodeid: str) -> str:
    """Return the name of the unit that a test belongs to."""
    file = _file_of(nodeid)
    if file.startswith(TOGETHER):
        return str(Path(file).parent)
    return nodeid if _is_independent(file) else file


@cache
def _is_independent(file: str) -> bool:
    """Read the mark from the file: the process that schedules collects nothing."""
    return "pytest.mark.independent" in (ROOT / file).read_text()


def arrange(items: list[pytest.Item]) -> None:
    """Sort the tests by `LONGEST_FIRST`."""
    items.sort(key=_rank)


def _rank(item: pytest.Item) -> int:
    ranks = [rank for rank, prefix in enumerate(LONGEST_FIRST) if item.nodeid.startswith(prefix)]
    return ranks[0] if ranks else len(LONGEST_FIRST)


def _file_of(nodeid: str) -> str:
    return nodeid.partition("::")[0]


def seconds_by_folder(reports: Iterable[pytest.TestReport]) -> Sequence[tuple[str, float, int]]:
    """Return each folder with the total seconds and the number of its tests, longest first."""
    seconds: Counter[str] = Counter()
    tests: Counter[str] = Counter()
    for report in reports:
        folder = str(Path(_file_of(report.nodeid)).parent)
        seconds[folder] += report.duration  # type: ignore[assignment]
        tests[folder] += report.when == "call"
    return [(folder, total, tests[folder]) for folder, total in seconds.most_common()]


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[], str]) -> str:
    """Return the result of `make`, which is called only once for each `name`, by the first worker that needs it."""
    folder = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    made = folder / f"once-{name}"
    with (folder / f"once-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            made.write_text(make())
    return made.read_text()
