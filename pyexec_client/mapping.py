"""Many runs at a time."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import TypeVar

import anyio
from anyio.streams.memory import MemoryObjectSendStream

from .result import Result

_S = TypeVar("_S")


async def run_all(
    run: Callable[[_S], Awaitable[Result]], sources: Iterable[_S], concurrency: int
) -> AsyncGenerator[tuple[int, Result], None]:
    """Run each source, `concurrency` of them at a time; give each one's place and result as it ends.

    The first that raises ends the others, and is raised. Sources are taken as they are needed.
    """
    numbered = enumerate(sources)

    async def work(results: MemoryObjectSendStream[tuple[int, Result]]) -> None:
        async with results:
            for place, source in numbered:  # shared: each worker takes the next
                await results.send((place, await run(source)))

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
    except BaseExceptionGroup as problems:
        # The group around it means nothing to the caller, and what failed with it fails for the same reason.
        raise problems.exceptions[0] from None
