"""Store an execution's output: in its terminal event if it is small, else in the blob store. Bound the memory of the
outputs that requests have loaded at the same time."""

from bisect import bisect_right
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.to_thread
from attrs import Factory, define, field

from pyexec.aio import Broadcast
from pyexec.domain.events import Output
from pyexec.domain.execution import Execution
from pyexec.domain.output_log import OutputLog, Stream
from pyexec.errors import TooLarge, Unavailable
from pyexec.ports import BlobStore

INLINE_BYTES_MAX = 64 * 1024
LOADED_BYTES_MAX = 128 * 1024 * 1024
MEMORY_WAIT_SECONDS = 30.0
"""How long a request waits for memory. Clients that read their response slowly may hold it for longer."""


def output_blob(execution_id: str) -> str:
    """Return the name of the blob with the output."""
    return f"{execution_id}/output"


def files_blob(execution_id: str) -> str:
    """Return the name of the blob with the output files."""
    return f"{execution_id}/files"


def payload_blob(execution_id: str) -> str:
    """Return the name of the blob with the archive."""
    return f"{execution_id}/payload"


async def store_output(
    blobs: BlobStore, execution_id: str, output_log: OutputLog
) -> tuple[Output, TooLarge | None]:
    """Store the output durably. The returned `Output` goes into the terminal event. A thread encodes a large output.

    If the store has no room for all of it, the displays are dropped. If it has no room for the rest either, only the
    beginning is kept, and the store's error is returned as well."""
    not_stored, size = None, len(output_log)
    dropped: tuple[str, ...] = ()
    while True:
        if output_log.encoded_length(size) <= INLINE_BYTES_MAX:
            return Output(inline=output_log.encode(size), truncated=dropped), not_stored
        encoded = await anyio.to_thread.run_sync(output_log.encode, size)
        try:
            await blobs.put(output_blob(execution_id), _chunks(encoded))
        except TooLarge as error:
            if output_log.size_of(Stream.DISPLAY):
                output_log = output_log.without_displays()
                size, dropped = len(output_log), (Stream.DISPLAY,)
            else:
                not_stored, size = error, size // 2
        else:
            return Output(blob=output_blob(execution_id), truncated=dropped), not_stored


def inline_output(output_log: OutputLog) -> Output:
    """Return the beginning of the output that fits into the terminal event, and which streams it cuts."""
    size = bisect_right(
        range(min(len(output_log), INLINE_BYTES_MAX) + 1),
        INLINE_BYTES_MAX,
        key=output_log.encoded_length,
    )
    kept = OutputLog.decode(encoded := output_log.encode(size - 1))
    cut = [stream for stream in Stream if len(kept.bytes_of(stream)) < len(output_log.bytes_of(stream))]
    return Output(inline=encoded, truncated=tuple(cut))


async def load_output(blobs: BlobStore, execution: Execution) -> OutputLog:
    """Return the output of an ended execution; an empty output log for one that has not ended."""
    output = execution.terminal.output if execution.terminal else Output()
    if output.blob is not None:
        stored = b"".join([chunk async for chunk in blobs.read(output.blob)])
        return await anyio.to_thread.run_sync(OutputLog.decode, stored)
    return OutputLog.decode(output.inline or b"")


async def _chunks(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 1024 * 1024):
        yield data[start : start + 1024 * 1024]


@define(eq=False)
class MemoryReservation:
    """The memory that one request of a tenant has reserved, in bytes."""

    size: int
    tenant: str | None


@define(eq=False, kw_only=True)
class OutputMemory:
    """Memory for stored outputs. A request that loads one reserves the maximum size first, and keeps what it needs.

    Requests of one tenant get at most half of it, which is enough for one output: its clients may read slowly."""

    output_bytes_max: int
    bytes_max: int = Factory(lambda self: max(LOADED_BYTES_MAX, 2 * self.output_bytes_max), takes_self=True)
    wait_seconds: float = MEMORY_WAIT_SECONDS
    _reserved: set[MemoryReservation] = field(factory=set, init=False)
    _released: Broadcast = field(factory=Broadcast, init=False)

    @asynccontextmanager
    async def reserve(self, tenant: str | None) -> AsyncIterator[MemoryReservation]:
        """Reserve memory for one output until the context exits. Raises `Unavailable` if none becomes free in time.

        `tenant` is None if the server requires no tokens."""
        reservation = MemoryReservation(self.output_bytes_max, tenant)
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

    def shrink(self, reservation: MemoryReservation, size: int) -> None:
        """Keep only `size` bytes of the reservation."""
        reservation.size = size
        self._released.notify_all()

    @property
    def available(self) -> int:
        """The bytes that are not reserved."""
        return self.bytes_max - sum(reservation.size for reservation in self._reserved)

    def _fits(self, reservation: MemoryReservation) -> bool:
        if reservation.tenant is not None:
            own = sum(each.size for each in self._reserved if each.tenant == reservation.tenant)
            if own and own + reservation.size > self.bytes_max // 2:
                return False
        return not self._reserved or reservation.size <= self.available
