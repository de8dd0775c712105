"""Weighted round robin over tenants: which tenant may start the next execution.

See docs/design/fairness.md for the algorithm, which is start-time fair queueing."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import count
from typing import Generic, TypeVar

from attrs import define, field

T = TypeVar("T")


@define
class FairShares:
    """Counts the starts of each tenant, and decides whose turn is next.

    A start costs a tenant `1 / weight`. `next` returns the tenant that would have paid the least. A tenant that had
    nothing to start accumulates no credit: its count continues at that of the last start."""

    weight_of: Callable[[str], int] = field(default=lambda _: 1)
    _now: float = 0.0
    _paid: dict[str, float] = field(factory=dict)

    def next(self, tenants: Iterable[str]) -> str | None:
        """Return the tenant whose turn is next. At equal counts, the first one in `tenants`."""
        return min(tenants, key=self._count_of, default=None)

    def charge(self, tenant: str) -> None:
        """Count one start."""
        self._now = max(self._now, self._count_of(tenant))
        self._paid[tenant] = self._count_of(tenant) + 1 / self.weight_of(tenant)
        self._paid = {name: paid for name, paid in self._paid.items() if paid > self._now}

    def copy(self) -> "FairShares":
        """Return an independent copy."""
        return FairShares(self.weight_of, self._now, dict(self._paid))

    def _count_of(self, tenant: str) -> float:
        return max(self._now, self._paid.get(tenant, 0.0))


@define
class FairQueue(Generic[T]):
    """A queue of items with a tenant each. The order within a tenant is first come, first served."""

    shares: FairShares = field(factory=FairShares)
    _waiting: dict[str, deque[tuple[int, T]]] = field(factory=dict, init=False)
    _arrivals: Iterator[int] = field(factory=count, init=False)

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def __iter__(self) -> Iterator[T]:
        """Yield all items, in no particular order."""
        return (item for items in self._waiting.values() for _, item in items)

    def length_of(self, tenant: str) -> int:
        """Return the number of items of a tenant."""
        return len(self._waiting.get(tenant, ()))

    def lengths(self) -> Mapping[str, int]:
        """Return the number of items of each tenant that has any."""
        return {tenant: len(items) for tenant, items in self._waiting.items()}

    def push(self, tenant: str, item: T) -> None:
        """Add an item at the end of its tenant's queue."""
        self._waiting.setdefault(tenant, deque()).append((next(self._arrivals), item))

    def peek(self, is_eligible: Callable[[str], bool] = lambda _: True) -> tuple[str, T] | None:
        """Return the next item with its tenant, among the tenants that are eligible."""
        if not self._waiting:  # the usual case, several times in each run
            return None
        eligible = filter(is_eligible, self._waiting)
        tenant = self.shares.next(sorted(eligible, key=lambda name: self._waiting[name][0][0]))
        return None if tenant is None else (tenant, self.first_of(tenant))

    def first_of(self, tenant: str) -> T:
        """Return the first item of a tenant. The tenant must have one."""
        return self._waiting[tenant][0][1]

    def pop(self, tenant: str) -> T:
        """Remove and return the first item of a tenant, and count its start."""
        items = self._waiting[tenant]
        _, item = items.popleft()
        self._forget_if_empty(tenant)
        self.shares.charge(tenant)
        return item

    def remove(self, tenant: str, item: T) -> None:
        """Remove an item that waits no longer, without a start."""
        items = self._waiting[tenant]
        items.remove(next(entry for entry in items if entry[1] is item))
        self._forget_if_empty(tenant)

    def _forget_if_empty(self, tenant: str) -> None:
        if not self._waiting[tenant]:
            del self._waiting[tenant]
