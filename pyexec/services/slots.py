"""How many programs may run at once on this replica, and the one line in which the others wait."""

from collections import deque

import anyio
from attrs import define, field, frozen

from pyexec.domain.spec import MEBIBYTE, Limits
from pyexec.errors import QueueFull, TooLarge, Unavailable
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
    """The right to run one program, in a sandbox that may take `memory_mb`. Give it back exactly once."""

    memory_mb: int


@define(eq=False)
class _Waiter:
    slot: Slot
    counted: bool
    granted: anyio.Event = field(factory=anyio.Event)


class Slots:
    """First come, first served, bounded by count and by the memory of all sandboxes together.

    `overhead_mb` is what a sandbox takes beside the program's memory and files."""

    def __init__(
        self,
        *,
        concurrent_max: int,
        waiting_max: int,
        memory_mb_max: int,
        overhead_mb: int,
        meter: Meter = NOOP_METER,
    ) -> None:
        self._meter = meter
        self._overhead_mb = overhead_mb
        self._free = concurrent_max
        self._free_mb = memory_mb_max
        self._memory_mb_max = memory_mb_max
        self._waiting_max = waiting_max
        self._line: deque[_Waiter] = deque()
        self._asked = anyio.Event()
        self.size = concurrent_max
        self.closed = False
        """Whether there is no room for new work, because the server stops."""
        self._watch()

    @property
    def free(self) -> int:
        """Slots that nobody holds."""
        return self._free

    @property
    def waiting(self) -> int:
        """How many executions stand in line themselves; those of the backlog are counted by the log."""
        return sum(waiter.counted for waiter in self._line)

    async def until_wanted(self, seconds: float) -> None:
        """Returns when somebody stands in line, or after so many seconds."""
        with anyio.move_on_after(seconds):
            while not self._line:
                await self._asked.wait()

    def close(self) -> None:
        """From now on there is no room for new work; what has begun goes on."""
        self.closed = True

    def must_wait(self, limits: Limits) -> bool:
        """Whether a newcomer would have to stand in line."""
        return bool(self._line) or not self._fits(self._slot_for(limits))

    def check_room(self, limits: Limits, also_waiting: int = 0) -> None:
        """Raises `QueueFull` when neither a slot nor a place in line is left; `also_waiting` wait elsewhere.

        Raises `Unavailable` after `close`."""
        if self.closed:
            raise Unavailable("this server is stopping; send the request again, it will reach another one")
        if self.must_wait(limits) and self.waiting + also_waiting >= self._waiting_max:
            raise QueueFull(
                f"all {self.size} slots are taken and {self._waiting_max} executions wait; try again later",
                retry_after_seconds=max(1, self._waiting_max // max(1, self.size)),
            )

    def check_fits(self, limits: Limits) -> None:
        """Raises `TooLarge` for a program that could never be admitted."""
        memory_mb = self._slot_for(limits).memory_mb
        if memory_mb > self._memory_mb_max:
            raise TooLarge(
                f"memory_mb, disk_mb and {self._overhead_mb} MiB around them are {memory_mb} MiB; this server gives "
                f"its sandboxes {self._memory_mb_max} MiB (PYEXEC_MAX_TOTAL_MEMORY_MB)",
                field="config.memory_mb" if limits.memory_mb >= limits.disk_mb else "config.disk_mb",
            )

    def try_reserve(self, limits: Limits) -> Slot | None:
        """A slot if one is free and nobody stands in line."""
        slot = self._slot_for(limits)
        if self.must_wait(limits):
            return None
        self._take(slot)
        return slot

    def take_over(self, limits: Limits) -> Slot:
        """A slot for a program that runs already, even when there is none left."""
        slot = self._slot_for(limits)
        self._take(slot)
        return slot

    async def reserve(self, limits: Limits, *, for_backlog: bool = False) -> Slot:
        """A slot, after waiting in line for it: for one execution, or for whatever the backlog has oldest then."""
        with timed(self._meter, STEP_SECONDS, "slot"):
            return await self._reserve(limits, for_backlog)

    async def _reserve(self, limits: Limits, for_backlog: bool) -> Slot:
        if slot := self.try_reserve(limits):
            return slot
        waiter = _Waiter(self._slot_for(limits), counted=not for_backlog)
        self._line.append(waiter)
        asked, self._asked = self._asked, anyio.Event()
        asked.set()
        try:
            await waiter.granted.wait()
        except BaseException:
            if waiter.granted.is_set():
                self.release(waiter.slot)
            else:
                self._line.remove(waiter)
                self._serve()
            raise
        return waiter.slot

    def release(self, slot: Slot) -> None:
        """Gives a slot back; the next in line gets it."""
        self._free += 1
        self._free_mb += slot.memory_mb
        self._serve()

    def _slot_for(self, limits: Limits) -> Slot:
        return Slot(limits.memory_mb + limits.disk_mb + self._overhead_mb)

    def _serve(self) -> None:
        while self._line and self._fits(self._line[0].slot):
            waiter = self._line.popleft()
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
        watch(QUEUE_LENGTH, lambda: len(self._line))
        watch(QUEUE_LIMIT, lambda: self._waiting_max)
        watch(MEMORY_BUDGET, lambda: self._memory_mb_max * MEBIBYTE)
        watch(MEMORY_RESERVED, lambda: (self._memory_mb_max - self._free_mb) * MEBIBYTE)
