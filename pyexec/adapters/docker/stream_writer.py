"""Write to the standard input of a container from several tasks, each of which may be cancelled."""

import asyncio

import anyio
from aiodocker.stream import Stream


class StreamWriter:
    """Writes to an attached stream, one piece of data after another.

    All writers of an aiohttp connection wait for the same future, and the cancellation of one of them cancels the
    others, too, and each later one (aiohttp 3.14). So each write has a task that is never cancelled, and
    belongs to no task group: it ends when the connection is closed. The next write waits for it, so that this object
    collects no data while the engine takes none."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._turn = anyio.Lock()
        self._last: asyncio.Task[None] | None = None

    async def write(self, data: bytes) -> None:
        """Write, and wait until the engine takes the data. If this is cancelled, the data may still be written."""
        async with self._turn:
            if self._last is not None and not self._last.done():
                await asyncio.wait([self._last])
            task = asyncio.create_task(self._stream.write_in(data), name="write to a container")
            task.add_done_callback(_retrieve_exception)
            self._last = task
            await asyncio.wait([task])
        task.result()


def _retrieve_exception(task: asyncio.Task[None]) -> None:
    """Mark the exception of a task as retrieved: a writer that was cancelled does not read it."""
    if not task.cancelled():
        task.exception()
