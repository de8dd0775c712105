"""Reserve a slot, or a place in the setup lane, for an execution that has not started."""

from collections.abc import Iterator
from contextlib import contextmanager

import anyio
from attrs import Factory, define, field

from pyexec.domain.spec import Limits
from pyexec.errors import QueueTimeout
from pyexec.services.setup_lane import SetupKey, SetupLane, SetupPlace
from pyexec.services.slots import Slot, Slots


@define(eq=False, kw_only=True)
class Reservation:
    """Holds a slot or a place in the setup lane, never both. `release` it if no program starts in the slot.

    `seconds_left` is how long the execution may still wait, in both queues together. `tenant` is its tenant."""

    slots: Slots
    lane: SetupLane
    seconds_left: float
    tenant: str
    slot: Slot | None = None
    place: SetupPlace | None = None
    _timeout_seconds: float = field(
        init=False, default=Factory(lambda self: self.seconds_left, takes_self=True)
    )

    @property
    def reserved_slot(self) -> Slot:
        """The slot. Raises `RuntimeError` if none is held."""
        if self.slot is None:
            raise RuntimeError("no slot is reserved")
        return self.slot

    def join_setup(self, key: SetupKey) -> SetupPlace:
        """Release the slot, and join the setup lane. Return the place there."""
        if self.place is None:
            self.release()
            self.place = self.lane.join(key, self.tenant)
        return self.place

    async def wait_for_setup(self) -> None:
        """Wait until the setup may begin. Raises `QueueTimeout`."""
        if self.place is not None:
            with self._waiting():
                await self.lane.wait(self.place, self.seconds_left)

    def try_slot(self, limits: Limits) -> bool:
        """Leave the setup lane, and reserve a slot if one is free. Return True if a slot is held now."""
        self._leave_lane()
        if self.slot is None:
            self.slot = self.slots.try_reserve(limits, self.tenant)
        return self.slot is not None

    def try_begin(self, limits: Limits, setup: SetupKey | None) -> bool:
        """Reserve a slot, or a place in the setup lane if `setup` is given, without waiting. Return True on success."""
        if self.slots.closed:
            return False
        if setup is None:
            return self.try_slot(limits)
        if begins := self.lane.begins_at_once(setup, self.tenant):
            self.join_setup(setup)
        return begins

    async def wait_for_slot(self, limits: Limits, *, during_drain: bool = False) -> bool:
        """Leave the setup lane, and wait for a slot. Return True if none was free at once.

        Raises as `Slots.reserve` does."""
        self._leave_lane()
        if self.slot is not None:
            return False
        waits = self.slots.must_wait(limits, self.tenant)
        with self._waiting():
            self.slot = await self.slots.reserve(
                limits, self.seconds_left, self.tenant, during_drain=during_drain
            )
        return waits

    @contextmanager
    def released_on_error(self) -> Iterator[None]:
        """Release what is held if the block raises, or is cancelled."""
        try:
            yield
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Release what is held."""
        self._leave_lane()
        if self.slot is not None:
            slot, self.slot = self.slot, None
            self.slots.release(slot)

    def _leave_lane(self) -> None:
        if self.place is not None:
            place, self.place = self.place, None
            self.lane.leave(place, self.tenant)

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        begun = anyio.current_time()
        try:
            yield
        except QueueTimeout as error:
            limit = f"PYEXEC_QUEUE_TIMEOUT ({self._timeout_seconds:g} s)"
            raise QueueTimeout(f"queue timeout: {error} within {limit}") from None
        finally:
            self.seconds_left = max(0.0, self.seconds_left - (anyio.current_time() - begun))
