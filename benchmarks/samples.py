"""What a row of the table is, and what it has measured."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from attrs import define, field


class Row(Protocol):
    """One line of the table, under a name of its own."""

    name: str

    def run(self) -> float:
        """One run, in seconds; raises `RuntimeError` when its outcome is not the right one."""


@define
class Samples:
    """The runs of one row, in seconds."""

    seconds: list[float] = field(factory=list)

    def percentile(self, percent: float) -> float:
        """The nearest-rank percentile, in seconds."""
        ordered = sorted(self.seconds)
        return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]

    @property
    def p50(self) -> float:
        """The median, in seconds."""
        return self.percentile(50)

    @property
    def p95(self) -> float:
        """What 19 runs of 20 keep within, in seconds."""
        return self.percentile(95)


class Stopwatch:
    """How long a `with timed()` block took."""

    seconds = 0.0


@contextmanager
def timed() -> Iterator[Stopwatch]:
    """Times its block, unless it raises."""
    watch, start = Stopwatch(), time.perf_counter()
    yield watch
    watch.seconds = time.perf_counter() - start
