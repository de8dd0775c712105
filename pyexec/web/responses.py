"""What is answered: the shapes of JSON answers, and the answer to those who wait for a run."""

import anyio
from aiohttp import web
from attrs import field, frozen

from pyexec.codec import to_json
from pyexec.domain.event_stream import Position
from pyexec.domain.execution import Status
from pyexec.domain.field_docs import described
from pyexec.domain.result import ID_FIELD, Summary
from pyexec.services.active_runs import Run
from pyexec.services.uploads import Upload
from pyexec.web.context import Context, caller_of, context_of
from pyexec.web.openapi.schemas import Problem
from pyexec.web.sse import send_events, wants_events


@frozen(kw_only=True)
class Accepted:
    """The answer to an asynchronous submission."""

    execution_id: str = field(metadata=ID_FIELD)


@frozen(kw_only=True)
class KillAnswer:
    """How the execution stands after the kill."""

    status: Status = field(metadata=described("killed; or as it ended by itself meanwhile.", "killed"))


@frozen(kw_only=True)
class Listing:
    """One page of executions, newest first."""

    executions: tuple[Summary, ...] = field(metadata=described("Without their output."))
    next_cursor: str | None = field(
        default=None,
        metadata={"nullable": True, **described("Asks for the next page; null on the last one.")},
    )


@frozen(kw_only=True)
class Health:
    """The process lives."""

    status: str = field(metadata=described("Always ok.", "ok"))


@frozen(kw_only=True)
class Readiness:
    """It takes work."""

    status: str = field(metadata=described("Always ok.", "ok"))
    warnings: tuple[str, ...] | None = field(
        default=None, metadata=described("What an operator should know; left out when there is nothing.")
    )


@frozen(kw_only=True)
class Unreadiness(Problem):
    """It takes no work now."""

    status: str | None = field(default=None, metadata=described("Always unavailable.", "unavailable"))
    reasons: dict[str, str] | None = field(
        default=None,
        metadata=described("What does not answer, and why.", {"docker": "does not answer within 5 s"}),
    )


async def run_and_answer(request: web.Request, upload: Upload) -> web.StreamResponse:
    """Runs an upload for a caller that waits. One that hangs up ends its run, unless it gave a key; a server that
    stops does not: the run goes on, and is found by its id."""
    context = context_of(request)
    started = await context.submissions.run(upload)
    try:
        return await (
            _answer_run(request, context, started)
            if isinstance(started, Run)
            else _answer_known(request, context, started)
        )
    except (anyio.get_cancelled_exc_class(), ConnectionError):
        if upload.key is None and isinstance(started, Run) and not context.submissions.closed:
            with anyio.CancelScope(shield=True):
                await context.executions.request_kill(started.id)
        raise


async def _answer_run(request: web.Request, context: Context, run: Run) -> web.StreamResponse:
    if wants_events(request):
        items = context.executions.known_items(run.id, Position(), caller_of(request))
        return await send_events(request, run.id, items)
    await run.inactive.wait()
    if not run.has_ended:
        return await _answer_known(request, context, run.id)
    return web.json_response(to_json(context.executions.result_of_run(run)))


async def _answer_known(request: web.Request, context: Context, execution_id: str) -> web.StreamResponse:
    if wants_events(request):
        items = await context.executions.items(execution_id, Position(), caller_of(request))
        return await send_events(request, execution_id, items)
    return web.json_response(to_json(await context.executions.final_result(execution_id, caller_of(request))))
