"""One scope around each request's handler, so that its caller's hanging up is a cancellation like any other."""

from collections.abc import Awaitable, Callable

import anyio
from aiohttp import web


@web.middleware
async def in_scope(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """aiohttp cancels a handler's task from outside when the caller hangs up, and no shield holds against that:
    a transaction could be left between its commit and what must follow it. In a task of its own the handler is
    cancelled by its scope instead, and what is shielded completes."""
    answers: list[web.StreamResponse] = []
    failures: list[Exception] = []

    async def handle() -> None:
        try:
            answers.append(await handler(request))
        except Exception as error:  # noqa: BLE001  handed on below, where it is not wrapped in a group
            failures.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(handle, name=f"{request.method} {request.path}")
    if failures:
        raise failures.pop()
    return answers.pop()
