"""Respond to a request that waits for an execution: with its result, or with its events."""

from collections.abc import Awaitable

import anyio
from aiohttp import web

from pyexec.domain.event_stream import Position
from pyexec.services.active_runs import Run
from pyexec.web.context import Context, get_context, read_caller
from pyexec.web.headers import EVENT_STREAM, prefers
from pyexec.web.sse import send_events
from pyexec.web.streaming import send_result


async def run_and_respond(
    request: web.Request, starting: Awaitable[Run | str], key: str | None
) -> web.StreamResponse:
    """Start an execution and wait for its result. `starting` returns its run, or the id of the execution that the
    idempotency key names.

    If the client disconnects, the execution is killed, unless the request has an idempotency key. A shutdown of this
    replica also cuts the connection, but kills nothing: the client can look up the execution by its id."""
    context = get_context(request)
    started = await starting
    try:
        if isinstance(started, Run):
            return await _respond_from_run(request, context, started)
        return await _respond_from_log(request, context, started)
    except (anyio.get_cancelled_exc_class(), ConnectionError):
        if key is None and isinstance(started, Run) and not context.submissions.closed:
            with anyio.CancelScope(shield=True):
                await context.executions.request_kill(started.id, read_caller(request))
        raise


async def _respond_from_run(request: web.Request, context: Context, run: Run) -> web.StreamResponse:
    """Respond from the memory of this replica, which runs the execution."""
    if prefers(request, EVENT_STREAM):
        items = context.executions.known_items(run.id, Position(), read_caller(request))
        return await send_events(request, run.id, items)
    await run.inactive.wait()
    if not run.has_ended:  # another replica has adopted it
        return await _respond_from_log(request, context, run.id)
    return await send_result(request, run.execution, run.output_log)


async def _respond_from_log(request: web.Request, context: Context, execution_id: str) -> web.StreamResponse:
    """Respond from the event log, for an execution that may run on another replica."""
    if prefers(request, EVENT_STREAM):
        items = await context.executions.items(execution_id, Position(), read_caller(request))
        return await send_events(request, execution_id, items)
    caller = read_caller(request)
    execution = await context.executions.wait_until_ended(execution_id, caller)
    async with context.executions.output(execution, caller) as output_log:
        return await send_result(request, execution, output_log)
