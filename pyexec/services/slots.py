"""Slots: how many programs run at once on this replica, and the queue for them."""

from collections import deque

import anyio
from attrs import define, field, frozen

from pyexec.aio import Broadcast
from pyexec.domain.spec import MEBIBYTE, Limits
from pyexec.errors import QueueTimeout, TooLarge
from pyexec.metrics import (
    MEMORY_BUDGET,
    MEMORY_RESERVED,
    NOOP_METER,
    QUEUE_LENGTH,
    QUEUE_LIMIT,
    SLOTS,
    SLOTS_IN_USE,
    STEP_SECONDS,
    Meter,
    timed,
)


@frozen
class Slot:
    """The right to run one program in a sandbox that may take `memory_mb`. Release it exactly once."""

    memory_mb: int


@define(eq=False)
class _Waiter:
    slot: Slot
    granted: anyio.Event = field(factory=anyio.Event)


class Slots:
    """Grants slots first come, first served, bounded by count and by the memory of all sandboxes together.

    `overhead_mb` is what a sandbox takes in addition to the program's memory and files."""

    def __init__(
        self,
        *,
        concurrent_max: int,
        queue_max: int,
        memory_mb_max: int,
        overhead_mb: int,
        meter: Meter = NOOP_METER,
    ) -> None:
        self._meter = meter
        self._overhead_mb = overhead_mb
        self._free = concurrent_max
        self._free_mb = memory_mb_max
        self._memory_mb_max = memory_mb_max
        self.queue_max = queue_max
        """How many executions may wait."""
        self._queue: deque[_Waiter] = deque()
        self._queued = Broadcast()
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

    async def wait_for_queue(self, seconds: float) -> None:
        """Wait until a request is in the queue, at most `seconds`."""
        with anyio.move_on_after(seconds):
            while not self._queue:
                await self._queued.wait()

    def close(self) -> None:
        """Reject new requests from now on. Slots that are in use stay valid."""
        self.closed = True

    def must_wait(self, limits: Limits) -> bool:
        """Return True if a new program would have to wait for a slot."""
        return bool(self._queue) or not self._fits(self._slot_for(limits))

    def room_for(self, limits: Limits) -> int:
        """Return how many programs with these limits could start at once."""
        return 0 if self._queue else min(self._free, self._free_mb // self._slot_for(limits).memory_mb)

    def check_fits(self, limits: Limits) -> None:
        """Raise `TooLarge` if one program needs more memory than all sandboxes together may use."""
        memory_mb = self._slot_for(limits).memory_mb
        if memory_mb > self._memory_mb_max:
            raise TooLarge(
                f"memory_mb, disk_mb and {self._overhead_mb} MiB of overhead are {memory_mb} MiB; all sandboxes of "
                f"this server together may take {self._memory_mb_max} MiB (PYEXEC_MAX_TOTAL_MEMORY_MB)",
                field="config.memory_mb" if limits.memory_mb >= limits.disk_mb else "config.disk_mb",
            )

    def try_reserve(self, limits: Limits) -> Slot | None:
        """Reserve a slot if one is free and the queue is empty."""
        slot = self._slot_for(limits)
        if self.must_wait(limits):
            return None
        self._take(slot)
        return slot

    def reserve_unconditionally(self, limits: Limits) -> Slot:
        """Reserve a slot for a program that runs already, even if none is free."""
        slot = self._slot_for(limits)
        self._take(slot)
        return slot

    async def reserve(self, limits: Limits, seconds: float) -> Slot:
        """Wait in the queue for a slot, at most `seconds`. Raises `QueueTimeout`."""
        with timed(self._meter, STEP_SECONDS, "slot"), anyio.move_on_after(seconds):
            return await self._wait_in_queue(limits)
        raise QueueTimeout("no slot became free")

    async def _wait_in_queue(self, limits: Limits) -> Slot:
        if slot := self.try_reserve(limits):
            return slot
        waiter = _Waiter(self._slot_for(limits))
        self._queue.append(waiter)
        self._queued.notify_all()
        try:
            await waiter.granted.wait()
        except BaseException:
            if waiter.granted.is_set():
                self.release(waiter.slot)
            else:
                self._queue.remove(waiter)
                self._grant()
            raise
        return waiter.slot

    def release(self, slot: Slot) -> None:
        """Release a slot. The first in the queue gets it."""
        self._free += 1
        self._free_mb += slot.memory_mb
        self._grant()

    def _slot_for(self, limits: Limits) -> Slot:
        return Slot(limits.memory_mb + limits.disk_mb + self._overhead_mb)

    def _grant(self) -> None:
        while self._queue and self._fits(self._queue[0].slot):
            waiter = self._queue.popleft()
            self._take(waiter.slot)
            waiter.granted.set()

    def _fits(self, slot: Slot) -> bool:
        return self._free > 0 and slot.memory_mb <= self._free_mb

    def _take(self, slot: Slot) -> None:
        self._free -= 1
        self._free_mb -= slot.memory_mb

    def _watch(self) -> None:
        watch = self._meter.watch
        watch(SLOTS, lambda: self.size)
        watch(SLOTS_IN_USE, lambda: self.size - self._free)
        watch(QUEUE_LENGTH, lambda: len(self._queue))
        watch(QUEUE_LIMIT, lambda: self.queue_max)
        watch(MEMORY_BUDGET, lambda: self._memory_mb_max * MEBIBYTE)
        watch(MEMORY_RESERVED, lambda: (self._memory_mb_max - self._free_mb) * MEBIBYTE)
