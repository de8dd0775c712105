"""What is asked for lately, and so what is worth keeping ready."""

import math
from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

Kind = TypeVar("Kind", bound=Hashable)

MEMORY_SECONDS = 60.0
"""After so long, what was asked counts for little more than a third."""
BURST_SECONDS = 2.0
"""The same, for how fast requests come at present."""
LEAST_WEIGHT = 1.5
"""What was asked for but once is not expected again."""
FORGOTTEN_WEIGHT = 0.01


class Demand(Generic[Kind]):
    """How often each kind was asked for, where what is long ago counts for less and less. Times are in seconds, of any
    clock that only goes forward. The `standard` kind is expected even when nobody has asked for it yet."""

    def __init__(self, standard: Kind) -> None:
        self._standard = standard
        self._weights: dict[Kind, float] = {}
        self._burst = 0.0
        self._then = -math.inf

    def note(self, kind: Kind, now: float) -> None:
        """One more has asked for this kind."""
        self._age(now)
        self._weights[kind] = self._weights.get(kind, 0.0) + 1
        self._burst += 1

    def forget(self, kind: Kind) -> None:
        """Nothing of it is expected, as if nobody had ever asked for it."""
        self._weights.pop(kind, None)

    def rate(self, now: float) -> float:
        """Requests a second, at present."""
        return self._burst * math.exp((self._then - now) / BURST_SECONDS) / BURST_SECONDS

    def places(self, size: int, now: float) -> Mapping[Kind, int]:
        """How many of `size` places each kind should have: as large a share as it has of the requests (by largest
        remainders), so all of them together have all places. The standard kind counts one request more."""
        self._age(now)
        weights = {kind: weight for kind, weight in self._weights.items() if weight >= LEAST_WEIGHT}
        weights[self._standard] = self._weights.get(self._standard, 0.0) + 1
        whole = sum(weights.values())
        shares = {kind: size * weight / whole for kind, weight in weights.items()}
        places = {kind: int(share) for kind, share in shares.items()}
        by_remainder = sorted(shares, key=lambda kind: (places[kind] - shares[kind], -weights[kind]))
        for kind in by_remainder[: size - sum(places.values())]:
            places[kind] += 1
        return places

    def _age(self, now: float) -> None:
        passed = max(0.0, now - self._then)
        fading = math.exp(-passed / MEMORY_SECONDS)
        faded = {kind: weight * fading for kind, weight in self._weights.items()}
        self._weights = {kind: weight for kind, weight in faded.items() if weight > FORGOTTEN_WEIGHT}
        self._burst *= math.exp(-passed / BURST_SECONDS)
        self._then = max(self._then, now)
