"""Bound the memory of the stored outputs that requests have loaded at the same time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from attrs import define, field

from pyexec.aio import Broadcast
from pyexec.errors import Unavailable

LOADED_BYTES_MAX = 128 * 1024 * 1024
WAIT_SECONDS = 30.0
"""How long a request waits for memory. Clients that read their response slowly may hold it for longer."""


@define(eq=False)
class Reservation:
    """Memory of one request."""

    size: int


@define(eq=False, kw_only=True)
class OutputMemory:
    """Memory for stored outputs. A request that loads one reserves the maximum size first, and keeps what it needs."""

    output_bytes_max: int
    bytes_max: int = LOADED_BYTES_MAX
    wait_seconds: float = WAIT_SECONDS
    _reserved: set[Reservation] = field(factory=set, init=False)
    _released: Broadcast = field(factory=Broadcast, init=False)

    @asynccontextmanager
    async def reserve(self) -> AsyncIterator[Reservation]:
        """Reserve memory for one output until the context exits. Raises `Unavailable` if none becomes free in time."""
        reservation = Reservation(self.output_bytes_max)
        with anyio.move_on_after(self.wait_seconds) as waiting:
            while not self._fits(reservation):
                await self._released.wait()
        if waiting.cancelled_caught:
            raise Unavailable("too many large outputs are being sent; send the request again later")
        self._reserved.add(reservation)
        try:
            yield reservation
        finally:
            self._reserved.remove(reservation)
            self._released.notify_all()

    def shrink(self, reservation: Reservation, size: int) -> None:
        """Keep only `size` bytes of the reservation."""
        reservation.size = size
        self._released.notify_all()

    @property
    def available(self) -> int:
        """The bytes that are not reserved."""
        return self.bytes_max - sum(reservation.size for reservation in self._reserved)

    def _fits(self, reservation: Reservation) -> bool:
        return not self._reserved or reservation.size <= self.available
