"""Slots: how many programs run at once on this replica, and the queue for them."""

from collections import Counter
from functools import partial

import anyio
from attrs import define, field, frozen

from pyexec.aio import Broadcast
from pyexec.domain.cluster import Capacity
from pyexec.domain.fair_queue import FairQueue, FairShares
from pyexec.domain.spec import MEBIBYTE, Limits
from pyexec.domain.tenants import Tenants
from pyexec.errors import QueueTimeout, ShuttingDown, TooLarge
from pyexec.metrics import (
    MEMORY_BUDGET,
    MEMORY_RESERVED,
    NOOP_METER,
    QUEUE_LENGTH,
    QUEUE_LIMIT,
    SLOTS,
    SLOTS_IN_USE,
    STEP_SECONDS,
    TENANT_QUEUE_LENGTH,
    TENANT_SLOTS_IN_USE,
    Meter,
    timed,
)


@frozen
class Slot:
    """The right of a tenant to run one program in a sandbox that may take `memory_mb`. Release it exactly once."""

    memory_mb: int
    tenant: str


@define(eq=False)
class _Waiter:
    slot: Slot
    granted: anyio.Event = field(factory=anyio.Event)


class Slots:
    """Grants slots, bounded by count and by the memory of all sandboxes together.

    Tenants that wait take turns, by their weights; see docs/design/fairness.md. Within a tenant, the order is first
    come, first served. A tenant that waits for its own programs or sessions does not delay other tenants.
    `overhead_mb` is what a sandbox takes in addition to the program's memory and files."""

    def __init__(
        self,
        *,
        concurrent_max: int,
        queue_max: int,
        memory_mb_max: int,
        overhead_mb: int,
        tenants: Tenants,
        meter: Meter = NOOP_METER,
    ) -> None:
        self.tenants = tenants
        self._meter = meter
        self._overhead_mb = overhead_mb
        self._free = concurrent_max
        self._free_mb = memory_mb_max
        self._memory_mb_max = memory_mb_max
        self.queue_max = queue_max
        """How many executions of a tenant may wait, unless the tenant has its own limit."""
        self._queue = FairQueue[_Waiter](FairShares(self.tenants.weight_of))
        self._running = Counter[str]()
        self._held_mb = Counter[str]()
        """The memory that the programs and sessions of each tenant reserve."""
        self._queued = Broadcast()
        self._until_closed: set[anyio.CancelScope] = set()
        """The scopes of requests that `close` ends."""
        self.size = concurrent_max
        self.closed = False
        """True during shutdown: no new work is accepted."""
        self._watch()

    @property
    def free(self) -> int:
        """The number of free slots."""
        return self._free

    @property
    def queue_length(self) -> int:
        """The number of executions in the queue."""
        return len(self._queue)

    @property
    def memory_mb(self) -> Capacity:
        """The memory that all sandboxes together may take, and how much of it slots reserve."""
        return Capacity(total=self._memory_mb_max, used=self._memory_mb_max - self._free_mb)

    def queue_length_of(self, tenant: str) -> int:
        """Return the number of executions of a tenant in the queue."""
        return self._queue.length_of(tenant)

    def in_use_by(self, tenant: str) -> int:
        """Return the number of slots that a tenant holds."""
        return self._running[tenant]

    async def wait_for_queue(self, seconds: float) -> None:
        """Wait until a request is in the queue, at most `seconds`."""
        with anyio.move_on_after(seconds):
            while not self._queue:
                await self._queued.wait()

    def close(self) -> None:
        """Reject new and queued requests, except those with `during_drain`. Slots in use stay valid."""
        self.closed = True
        for scope in self._until_closed:
            scope.cancel()

    def must_wait(self, limits: Limits, tenant: str) -> bool:
        """Return True if a new program would have to wait for a slot."""
        return self.room_for(limits, tenant) <= 0

    def room_for(self, limits: Limits, tenant: str) -> int:
        """Return how many programs of a tenant with these limits could start at once."""
        if self._must_queue(tenant):
            return 0
        room = min(self._free, self._free_mb // self.memory_for(limits))
        allowed = self.tenants.get(tenant).max_running
        return room if allowed is None else min(room, allowed - self._running[tenant])

    def check_fits(self, limits: Limits) -> None:
        """Raise `TooLarge` if one program needs more memory than all sandboxes together may use."""
        memory_mb = self.memory_for(limits)
        if memory_mb > self._memory_mb_max:
            raise TooLarge(
                f"memory_mb, disk_mb and {self._overhead_mb} MiB of overhead are {memory_mb} MiB; all sandboxes of "
                f"this server together may take {self._memory_mb_max} MiB (PYEXEC_MAX_TOTAL_MEMORY_MB)",
                field="config.memory_mb" if limits.memory_mb >= limits.disk_mb else "config.disk_mb",
            )

    def try_reserve(self, limits: Limits, tenant: str) -> Slot | None:
        """Reserve a slot if the tenant need not wait for one, and the replica does not shut down."""
        return None if self.closed else self._try_reserve(limits, tenant)

    def _try_reserve(self, limits: Limits, tenant: str) -> Slot | None:
        slot = self._slot_for(limits, tenant)
        if self.must_wait(limits, tenant):
            return None
        self._queue.shares.charge(tenant)
        self._take(slot)
        return slot

    def try_reserve_memory(self, limits: Limits, extra_mb: int, tenant: str, *, keep: Limits) -> int | None:
        """Reserve the memory of a sandbox without a slot, such as an interpreter session's, and `extra_mb` more.

        Return the MiB to give back with `release_memory`. Return None if the memory of `kept_free` would not be free
        afterwards."""
        memory_mb = self.memory_for(limits) + extra_mb
        if memory_mb + self.kept_free(keep, extra_mb) > self._free_mb:
            return None
        self._hold(memory_mb, tenant)
        return memory_mb

    def kept_free(self, keep: Limits, extra_mb: int) -> int:
        """Return the MiB that sessions leave free: enough for a program with the limits `keep`, and for the largest
        execution that waits.

        If the total memory is too small for a session and such a program, nothing is kept for the program: otherwise
        no session could ever open."""
        kept_mb = self.memory_for(keep)
        if 2 * kept_mb + extra_mb > self._memory_mb_max:
            kept_mb = 0
        return max([kept_mb, *(waiter.slot.memory_mb for waiter in self._queue)])

    def reserve_memory_unconditionally(self, limits: Limits, extra_mb: int, tenant: str) -> int:
        """Reserve the memory of a sandbox that runs already, even if it is not free."""
        memory_mb = self.memory_for(limits) + extra_mb
        self._hold(memory_mb, tenant)
        return memory_mb

    def release_memory(self, memory_mb: int, tenant: str) -> None:
        """Give back memory without a slot. The next in the queue may get it."""
        self._hold(-memory_mb, tenant)
        self._grant()

    def reserve_unconditionally(self, limits: Limits, tenant: str) -> Slot:
        """Reserve a slot for a program that runs already, even if none is free."""
        slot = self._slot_for(limits, tenant)
        self._take(slot)
        return slot

    async def reserve(
        self, limits: Limits, seconds: float, tenant: str, *, during_drain: bool = False
    ) -> Slot:
        """Wait in the queue for a slot, at most `seconds`. Raises `QueueTimeout`.

        Raises `ShuttingDown` after `close`, unless `during_drain` is True: for an execution that can run only here."""
        with timed(self._meter, STEP_SECONDS, "slot"):
            self._check_open(during_drain)
            if slot := self._try_reserve(limits, tenant):
                return slot
            with anyio.move_on_after(seconds) as scope:
                if not during_drain:
                    self._until_closed.add(scope)
                try:
                    return await self._wait_in_queue(limits, tenant)
                finally:
                    self._until_closed.discard(scope)
            self._check_open(during_drain)
        raise QueueTimeout("no slot became free")

    def _check_open(self, during_drain: bool) -> None:
        if self.closed and not during_drain:
            raise ShuttingDown

    async def _wait_in_queue(self, limits: Limits, tenant: str) -> Slot:
        waiter = _Waiter(self._slot_for(limits, tenant))
        self._queue.push(tenant, waiter)
        self._queued.notify_all()
        try:
            await waiter.granted.wait()
        except BaseException:
            if waiter.granted.is_set():
                self.release(waiter.slot)
            else:
                self._queue.remove(tenant, waiter)
                self._grant()
            raise
        return waiter.slot

    def release(self, slot: Slot) -> None:
        """Release a slot. The next in the queue gets it."""
        self._free += 1
        self._hold(-slot.memory_mb, slot.tenant)
        self._running[slot.tenant] -= 1
        self._grant()

    def _slot_for(self, limits: Limits, tenant: str) -> Slot:
        return Slot(self.memory_for(limits), tenant)

    def memory_for(self, limits: Limits) -> int:
        """Return the MiB that a sandbox with these limits reserves."""
        return limits.memory_mb + limits.disk_mb + self._overhead_mb

    def _grant(self) -> None:
        while (waiter := self._next_waiter()) is not None and self._fits(waiter.slot):
            self._queue.pop(waiter.slot.tenant)
            self._take(waiter.slot)
            waiter.granted.set()

    def _must_queue(self, tenant: str) -> bool:
        """Return True if other waiters come before a new request of a tenant, whatever it needs."""
        return self._next_waiter() is not None or self._queue.length_of(tenant) > 0

    def _next_waiter(self) -> _Waiter | None:
        """Return the waiter whose turn is next. While its memory is not free, all others wait, too: otherwise small
        programs could starve a large one."""
        found = self._queue.peek(self._delays_others)
        return None if found is None else found[1]

    def _delays_others(self, tenant: str) -> bool:
        """Return False if a tenant waits for itself: it is at its `max_running`, or its own programs and sessions leave
        too little memory for its first waiter."""
        allowed = self.tenants.get(tenant).max_running
        if allowed is not None and self._running[tenant] >= allowed:
            return False
        return self._queue.first_of(tenant).slot.memory_mb + self._held_mb[tenant] <= self._memory_mb_max

    def _fits(self, slot: Slot) -> bool:
        return self._free > 0 and slot.memory_mb <= self._free_mb

    def _take(self, slot: Slot) -> None:
        self._free -= 1
        self._hold(slot.memory_mb, slot.tenant)
        self._running[slot.tenant] += 1

    def _hold(self, memory_mb: int, tenant: str) -> None:
        self._free_mb -= memory_mb
        self._held_mb[tenant] += memory_mb

    def _watch(self) -> None:
        watch = self._meter.watch
        watch(SLOTS, lambda: self.size)
        watch(SLOTS_IN_USE, lambda: self.size - self._free)
        watch(QUEUE_LENGTH, lambda: len(self._queue))
        watch(QUEUE_LIMIT, lambda: self.queue_max)
        watch(MEMORY_BUDGET, lambda: self._memory_mb_max * MEBIBYTE)
        for name in self.tenants.names:
            watch(TENANT_QUEUE_LENGTH, partial(self.queue_length_of, name), name)
            watch(TENANT_SLOTS_IN_USE, partial(self.in_use_by, name), name)
        watch(MEMORY_RESERVED, lambda: (self._memory_mb_max - self._free_mb) * MEBIBYTE)
