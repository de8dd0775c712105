"""Decide from recent requests which idle sandboxes the pool starts and removes. See docs/design/pool.md."""

import math
from collections import defaultdict
from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

from attrs import frozen

from pyexec.sandbox.pool.kind_queue import IdleSandbox, KindQueue, SandboxKind

Kind = TypeVar("Kind", bound=Hashable)

REFILL_DELAY_SECONDS = 0.15
"""Refill when sandboxes have been lacking for this long. Most programs end sooner, and their sandboxes come back. A
start at the same time would take processor time from them."""
BUSY_REFILL_DELAY_SECONDS = 1.0
"""The delay while programs run, if the idle sandboxes are expected to last that long. A start slows down a program that
imports numpy by an eighth (two processors)."""
CHECK_PAUSE_SECONDS = 0.02
"""Pause between two checks of what to start and remove. Each run changes the pool several times; with a check for each
change, the server took an eighth more processor time for a run (2026-11-27)."""
DEMAND_CHECK_SECONDS = 15.0
"""How often the pool checks whether demand for other kinds has decayed."""
SURPLUS_SECONDS = 5.0
"""How long the pool keeps more used sandboxes than it has places."""
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


@frozen(kw_only=True)
class Step:
    """The next action: start a sandbox of a kind, remove an idle one, or check again after some seconds.

    Without any of them, check again after the next change."""

    start: SandboxKind | None = None
    remove: IdleSandbox | None = None
    seconds: float | None = None


class Refill:
    """Keeps `size` idle sandboxes of the kinds with the highest demand, and starts up to `parallel` at once."""

    def __init__(
        self, queues: defaultdict[SandboxKind, KindQueue], default_kind: SandboxKind, size: int, parallel: int
    ):
        self.demand = Demand(default_kind)
        self.tenants: set[str] = set()
        """The tenants whose programs have used the pool."""
        self._queues = queues
        self._default_kind = default_kind
        self._size = size
        self._parallel = parallel
        self._lacking_since = -math.inf

    def next_step(self, now: float, start_seconds: float, busy: bool) -> Step:
        """Return what to do now. A start takes `start_seconds`; `busy` is True while programs run."""
        if (surplus := self._surplus()) and surplus.since + SURPLUS_SECONDS <= now:
            return Step(remove=surplus)
        places = self.demand.allocate(self._size, now)
        for kind in [kind for kind, queue in self._queues.items() if queue.empty and kind not in places]:
            del self._queues[kind]
        step = self._refill(places, now, start_seconds, busy)
        if step.start is None and surplus:
            seconds = surplus.since + SURPLUS_SECONDS - now
            return Step(seconds=seconds if step.seconds is None else min(seconds, step.seconds))
        return step

    def has_place(self) -> bool:
        """Return True if one more sandbox that has not been used may be idle."""
        return sum(map(self._unused_supply, self._queues)) < self._size

    def _refill(
        self, places: Mapping[SandboxKind, int], now: float, start_seconds: float, busy: bool
    ) -> Step:
        supplies = {kind: self._supply(kind, now) for kind in self._queues.keys() | places.keys()}
        lacking = [kind for kind, count in places.items() if supplies[kind] < count]
        self._lacking_since = min(self._lacking_since, now) if lacking else math.inf
        if self._size == 0 or any(queue.requests for queue in self._queues.values()):
            return Step()
        if not lacking:
            others_idle = any(
                queue.idle for kind, queue in self._queues.items() if kind != self._default_kind
            )
            overdue = min(queue.next_overdue(now) for queue in self._queues.values())
            seconds = min(overdue - now, DEMAND_CHECK_SECONDS if others_idle else math.inf)
            return Step(seconds=None if math.isinf(seconds) else seconds)
        rate = self.demand.rate(now)
        expected = rate * start_seconds
        supply = sum(supplies.values())
        urgent = expected >= 1 and supply < expected
        if sum(queue.starting for queue in self._queues.values()) >= (self._parallel if urgent else 1):
            return Step()
        not_before = min(self._queues[kind].paused_until for kind in lacking)
        if not urgent:
            can_wait = busy and supply >= rate * (start_seconds + BUSY_REFILL_DELAY_SECONDS)
            delay = BUSY_REFILL_DELAY_SECONDS if can_wait else REFILL_DELAY_SECONDS
            not_before = max(not_before, self._lacking_since + delay)
        if now < not_before:
            return Step(seconds=not_before - now)
        evicted = self._oldest_of_surplus_kind(places, now) if supply >= self._size else None
        if supply >= self._size and evicted is None:
            return Step()
        ready = [kind for kind in lacking if self._queues[kind].paused_until <= now]
        return Step(start=max(ready, key=lambda kind: places[kind] - supplies[kind]), remove=evicted)

    def _supply(self, kind: SandboxKind, now: float) -> int:
        """Return how many sandboxes of this kind take, or will soon take, one of its places."""
        returning = self._queues[kind].returning_soon(now) if len(self.tenants) <= 1 else 0
        return self._unused_supply(kind) + returning

    def _unused_supply(self, kind: SandboxKind) -> int:
        """Return how many sandboxes of this kind that no program uses take, or will take, one of its places.

        If there are several tenants, a sandbox that has been used takes no place, because only one of them can use
        it."""
        queue = self._queues[kind]
        return queue.supply if len(self.tenants) <= 1 else queue.new_supply

    def _surplus(self) -> IdleSandbox | None:
        """Return the used sandbox that has been idle for the longest time, if more are idle than there are places."""
        idle = [idle for queue in self._queues.values() for idle in queue.idle]
        used = [idle for idle in idle if idle.tenant is not None]
        return min(used, key=lambda idle: idle.since) if used and len(idle) > self._size else None

    def _oldest_of_surplus_kind(self, places: Mapping[SandboxKind, int], now: float) -> IdleSandbox | None:
        """Return the oldest idle sandbox of the kind with the largest surplus; None if none has a surplus."""
        surplus = {
            kind: self._supply(kind, now) - places.get(kind, 0)
            for kind, queue in self._queues.items()
            if queue.idle
        }
        kind = max(surplus, key=lambda kind: surplus[kind], default=None)
        return None if kind is None or surplus[kind] <= 0 else self._queues[kind].idle[0]
