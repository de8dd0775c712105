"""Decide which kinds of sandboxes to keep ready, from recent requests. Pure code; see docs/design/pool.md."""

import math
from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

Kind = TypeVar("Kind", bound=Hashable)

DECAY_SECONDS = 60.0
"""Time constant of the decay of a kind's weight."""
RATE_DECAY_SECONDS = 2.0
"""Time constant of the decay of the request rate."""
MIN_WEIGHT = 1.5
"""Kinds with less weight are not kept ready. A single request has a weight of 1."""
NEGLIGIBLE_WEIGHT = 0.01


class Demand(Generic[Kind]):
    """Counts the requests for each kind, with exponential decay.

    Times are in seconds, of any monotonic clock. The `default` kind is kept ready even without requests."""

    def __init__(self, default: Kind) -> None:
        self._default = default
        self._weights: dict[Kind, float] = {}
        self._burst = 0.0
        self._updated = -math.inf

    def record(self, kind: Kind, now: float) -> None:
        """Count a request for this kind."""
        self._decay(now)
        self._weights[kind] = self._weights.get(kind, 0.0) + 1
        self._burst += 1

    def record_return(self, now: float) -> None:
        """Count a sandbox that came back and can be used again. In `rate`, it offsets one request."""
        self._decay(now)
        self._burst = max(0.0, self._burst - 1)

    def forget(self, kind: Kind) -> None:
        """Forget the requests for this kind."""
        self._weights.pop(kind, None)

    def rate(self, now: float) -> float:
        """Return the current rate of sandboxes taken minus sandboxes returned, per second, over all kinds."""
        return self._burst * math.exp((self._updated - now) / RATE_DECAY_SECONDS) / RATE_DECAY_SECONDS

    def allocate(self, size: int, now: float) -> Mapping[Kind, int]:
        """Divide `size` places among the kinds in proportion to their weights (largest remainder method).

        The sum of the result is `size`. The default kind counts as if it had one more request, so it is kept ready even
        if no request asks for it."""
        self._decay(now)
        weights = {kind: weight for kind, weight in self._weights.items() if weight >= MIN_WEIGHT}
        weights[self._default] = self._weights.get(self._default, 0.0) + 1
        total = sum(weights.values())
        shares = {kind: size * weight / total for kind, weight in weights.items()}
        places = {kind: int(share) for kind, share in shares.items()}
        by_remainder = sorted(shares, key=lambda kind: (places[kind] - shares[kind], -weights[kind]))
        for kind in by_remainder[: size - sum(places.values())]:
            places[kind] += 1
        return places

    def _decay(self, now: float) -> None:
        elapsed = max(0.0, now - self._updated)
        factor = math.exp(-elapsed / DECAY_SECONDS)
        decayed = {kind: weight * factor for kind, weight in self._weights.items()}
        self._weights = {kind: weight for kind, weight in decayed.items() if weight > NEGLIGIBLE_WEIGHT}
        self._burst *= math.exp(-elapsed / RATE_DECAY_SECONDS)
        self._updated = max(self._updated, now)
