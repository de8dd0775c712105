"""Timing of benchmark rows: the row interface, its samples, and the order in which rows take turns."""

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from attrs import define, field


class Row(Protocol):
    """One line of a benchmark table."""

    @property
    def name(self) -> str:
        """Return the name, which is unique within the table."""

    def run(self) -> float:
        """Run once and return the seconds; raise `RuntimeError` on a wrong outcome."""


@define
class Samples:
    """The times of one row, in seconds."""

    seconds: list[float] = field(factory=list)

    def percentile(self, percent: float) -> float:
        """Return the nearest-rank percentile, in seconds."""
        ordered = sorted(self.seconds)
        return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]

    @property
    def p50(self) -> float:
        """Return the median, in seconds."""
        return self.percentile(50)

    @property
    def p95(self) -> float:
        """Return the 95th percentile, in seconds."""
        return self.percentile(95)


class Stopwatch:
    """The seconds that a `with timed()` block took."""

    seconds = 0.0


@contextmanager
def timed() -> Iterator[Stopwatch]:
    """Time the block; on an exception the stopwatch stays at 0."""
    watch, start = Stopwatch(), time.perf_counter()
    yield watch
    watch.seconds = time.perf_counter() - start


def measure(
    rows: Sequence[tuple[Row, int]], rounds: int, wait_until_idle: Callable[[], None] = lambda: None
) -> Mapping[str, Samples]:
    """Run each row, as many times as given with it, in every round.

    The rows take turns so that other load on the machine affects all of them equally. Call `wait_until_idle` before
    each row."""
    samples = {row.name: Samples() for row, _ in rows}
    for number in range(1, rounds + 1):
        for row, times in rows:
            wait_until_idle()
            samples[row.name].seconds += [row.run() for _ in range(times)]
        print_progress(f"round {number} of {rounds}")
    return samples


def balanced_orders(names: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield as many orders as there are names; each name directly follows each other name exactly once.

    So the aftereffects of each name are shared equally by all others. The number of names must be one less than a
    prime (this is a row-complete Latin square)."""
    prime = len(names) + 1
    for step in range(1, prime):
        yield [names[step * place % prime - 1] for place in range(1, prime)]


def print_progress(progress: str) -> None:
    """Print the progress on one line of the terminal, if stderr is one."""
    if sys.stderr.isatty():
        print(f"\r{progress}", end="", file=sys.stderr)
