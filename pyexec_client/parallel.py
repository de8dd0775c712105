"""Run many sources concurrently, up to a limit."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import TypeVar

import anyio
from anyio.streams.memory import MemoryObjectSendStream

from .result import Result

_S = TypeVar("_S")


async def run_in_parallel(
    run: Callable[[_S], Awaitable[Result]], sources: Iterable[_S], concurrency: int
) -> AsyncGenerator[tuple[int, Result], None]:
    """Run each source, up to `concurrency` at a time, and yield `(index, result)` as each one ends.

    The first error cancels the other runs and is raised. Sources are read only when they are needed.
    """
    numbered = enumerate(sources)

    async def work(results: MemoryObjectSendStream[tuple[int, Result]]) -> None:
        async with results:
            for index, source in numbered:  # one iterator for all workers: each takes the next source
                await results.send((index, await run(source)))

    send, receive = anyio.create_memory_object_stream[tuple[int, Result]]()
    try:
        async with anyio.create_task_group() as group, receive:
            for number in range(concurrency):
                group.start_soon(work, send.clone(), name=f"map {number}")
            send.close()
            try:
                async for result in receive:
                    yield result
            finally:
                group.cancel_scope.cancel()
    except BaseExceptionGroup as errors:
        # Callers expect the run's own error, not a group. The others in the group have the same cause.
        raise errors.exceptions[0] from None
