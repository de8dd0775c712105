"""Check how processor time grows with the size of the input. A ratio of two times does not depend on the machine."""

from collections.abc import Callable
from time import process_time

import pytest

FACTOR = 8
"""How many times as large the second input must be."""
ROUNDS = 3
SHORTEST_SECONDS = 0.0002
"""Times below this one say nothing: the clock and the fixed costs of a call dominate them."""


def assert_growth(small: Callable[[], object], large: Callable[[], object], *, power: int = 1) -> None:
    """Fail if the time grows faster than with this power of the size. The input of `large` is `FACTOR` times as large.

    Each doubling may take half as long again: linear time may grow by 27 instead of 8, and quadratic time gives 64."""
    ratio_max = (1.5 * 2**power) ** (FACTOR.bit_length() - 1)
    times = 1
    while _seconds(small, times) < SHORTEST_SECONDS:
        times *= 4
    for _ in range(3):  # another process may disturb all rounds of a measurement
        shorter = min(_seconds(small, times) for _ in range(ROUNDS))
        longer = min(_seconds(large, times) for _ in range(ROUNDS))
        if longer <= ratio_max * shorter:
            return
    pytest.fail(f"{FACTOR} times the size takes {longer / shorter:.1f} times as long")


def _seconds(run: Callable[[], object], times: int) -> float:
    started = process_time()
    for _ in range(times):
        run()
    return process_time() - started
