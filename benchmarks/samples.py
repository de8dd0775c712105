"""What a row of the table is, and what it has measured."""

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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


def measure(
    rows: Sequence[tuple[Row, int]], rounds: int, settle: Callable[[], None] = lambda: None
) -> Mapping[str, Samples]:
    """Every row in turn, each as often as it says, in every round: what disturbs the machine disturbs all alike.
    `settle` waits until what the row before has set off is over."""
    samples = {row.name: Samples() for row, _ in rows}
    for number in range(1, rounds + 1):
        for row, times in rows:
            settle()
            samples[row.name].seconds += [row.run() for _ in range(times)]
        show(f"round {number} of {rounds}")
    return samples


def balanced(names: Sequence[str]) -> Iterator[Sequence[str]]:
    """As many orders as there are names, in which each comes right after each other one once: what one leaves behind
    falls on all alike. Their number must be one less than a prime (a row-complete Latin square)."""
    prime = len(names) + 1
    for step in range(1, prime):
        yield [names[step * place % prime - 1] for place in range(1, prime)]


def show(progress: str) -> None:
    """On a terminal: where the measurement is."""
    if sys.stderr.isatty():
        print(f"\r{progress}", end="", file=sys.stderr)
