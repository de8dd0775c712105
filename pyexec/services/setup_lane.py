"""The setup lane: how many setups run at once on this replica, and the queue for them.

A setup pulls an image or builds an environment. It holds no slot. See docs/design/setup-lane.md."""

from collections import Counter
from collections.abc import Sequence

import anyio
from attrs import define, field, frozen

from pyexec.domain.environment import Recipe
from pyexec.domain.fair_queue import FairShares
from pyexec.domain.spec import Spec
from pyexec.domain.tenants import Tenants
from pyexec.errors import QueueTimeout
from pyexec.metrics import (
    NOOP_METER,
    SETUP_LIMIT,
    SETUP_QUEUE_LENGTH,
    SETUPS_RUNNING,
    STEP_SECONDS,
    Meter,
    timed,
)

SetupKey = tuple[str, Recipe | None]
"""The image's name and the recipe. Executions with the same key share one setup."""
SetupRequest = tuple[SetupKey, str]
"""A setup, and the tenant of an execution that needs it."""


def setup_key(spec: Spec) -> SetupKey:
    """Return the key of the setup that `spec` needs if its environment is missing."""
    return spec.docker_image, spec.recipe


@define(eq=False)
class SetupPlace:
    """One setup in the lane, and how many executions of each tenant need it. `begun` is set once it may run.

    It counts for `tenant`: the tenant whose execution came first or, if that tenant is at its `max_setups`, one whose
    execution joined later."""

    key: SetupKey
    tenant: str
    begun: anyio.Event = field(factory=anyio.Event)
    executions: Counter[str] = field(factory=Counter)
    closed: bool = False
    """True once an execution has left the running setup. The setup may have ended, so no execution joins it."""


@frozen
class LaneCount:
    """The number of executions in running setups, and of executions whose setup has not begun."""

    running: int
    waiting: int


class SetupLane:
    """Lets at most `size` setups run at once, and at most `max_setups` of a tenant. Tenants take turns; within a
    tenant, first come, first served.

    An execution that needs a setup joins it, waits, and leaves the lane after the setup."""

    def __init__(self, size: int, tenants: Tenants, meter: Meter = NOOP_METER) -> None:
        self.size = size
        self._tenants = tenants
        self._shares = FairShares(tenants.weight_of)
        self._meter = meter
        self._places: list[SetupPlace] = []
        """Those that have begun come first. The others wait, in the order of arrival."""
        meter.watch(SETUP_LIMIT, lambda: self.size)
        meter.watch(SETUPS_RUNNING, lambda: len(self._begun()))
        meter.watch(SETUP_QUEUE_LENGTH, lambda: self.count().waiting)

    def __len__(self) -> int:
        """Return the number of executions in the lane."""
        return sum(place.executions.total() for place in self._places)

    def join(self, key: SetupKey, tenant: str) -> SetupPlace:
        """Join the setup with this key, or put a new one at the end of the lane. The caller must `leave` it once."""
        place = self._find(key)
        if place is None:
            place = SetupPlace(key, tenant)
            self._places.append(place)
        elif not place.begun.is_set():
            begun = self._begun_by_tenant()
            if self._is_at_limit(place.tenant, begun) and not self._is_at_limit(tenant, begun):
                place.tenant = tenant
        place.executions[tenant] += 1
        self._begin()
        return place

    def leave(self, place: SetupPlace, tenant: str) -> None:
        """Leave a setup. When its last execution leaves, the next setup begins."""
        place.executions[tenant] -= 1
        place.closed = place.begun.is_set()
        if not place.executions.total():
            self._places.remove(place)
            self._begin()

    async def wait(self, place: SetupPlace, seconds: float) -> None:
        """Wait until the setup may begin, at most `seconds`. Raises `QueueTimeout`."""
        with timed(self._meter, STEP_SECONDS, "setup_place"), anyio.move_on_after(seconds):
            await place.begun.wait()
            return
        raise QueueTimeout("no setup could begin")

    def begins_at_once(self, key: SetupKey, tenant: str, before: Sequence[SetupRequest] = ()) -> bool:
        """Return True if a setup with this key would not wait, even if the setups `before` came first."""
        return self.count([*before, (key, tenant)]).waiting == self.count(before).waiting

    def count(self, more: Sequence[SetupRequest] = (), tenant: str | None = None) -> LaneCount:
        """Count the executions in the lane, as if `more` had joined it. With `tenant`, count only those of it."""
        begun = self._begun()
        running = sum(_executions(place, tenant) for place in begun)
        waiting = sum(_executions(place, tenant) for place in self._places[len(begun) :])
        joinable = {place.key: place.begun.is_set() for place in self._places if not place.closed}
        begun_by_tenant = self._begun_by_tenant()
        for key, owner in more:
            if key not in joinable:
                joinable[key] = self._may_begin(owner, begun_by_tenant)
                begun_by_tenant[owner] += joinable[key]
            if tenant in (None, owner):
                running += joinable[key]
                waiting += not joinable[key]
        return LaneCount(running, waiting)

    def _find(self, key: SetupKey) -> SetupPlace | None:
        return next((place for place in self._places if place.key == key and not place.closed), None)

    def _begin(self) -> None:
        """Begin as many setups as there are free places, each time of the tenant whose turn it is."""
        while True:
            begun = self._begun_by_tenant()
            waiting = self._places[begun.total() :]
            eligible = [place for place in waiting if self._may_begin(place.tenant, begun)]
            tenant = self._shares.next(place.tenant for place in eligible)
            if tenant is None:
                return
            place = next(place for place in eligible if place.tenant == tenant)
            self._shares.charge(tenant)
            self._places.remove(place)
            self._places.insert(begun.total(), place)
            place.begun.set()

    def _begun(self) -> list[SetupPlace]:
        return [place for place in self._places if place.begun.is_set()]

    def _begun_by_tenant(self) -> Counter[str]:
        """Return the number of running setups of each tenant."""
        return Counter(place.tenant for place in self._begun())

    def _may_begin(self, tenant: str, begun: Counter[str]) -> bool:
        """Return True if one more setup of a tenant may begin while the setups in `begun` run."""
        return begun.total() < self.size and not self._is_at_limit(tenant, begun)

    def _is_at_limit(self, tenant: str, begun: Counter[str]) -> bool:
        """Return True if the tenant has its `max_setups` among the setups in `begun`."""
        allowed = self._tenants.get(tenant).max_setups
        return allowed is not None and begun[tenant] >= allowed


def _executions(place: SetupPlace, tenant: str | None) -> int:
    return place.executions.total() if tenant is None else place.executions[tenant]
