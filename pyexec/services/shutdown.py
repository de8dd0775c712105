"""End a run that has not started when the server shuts down, or release it so that another replica can start it."""

from pyexec.domain.events import FailureType
from pyexec.domain.outcome import RunOutcome
from pyexec.services.active_runs import Run
from pyexec.services.completion import CompletionWriter

RELEASED_AT_SHUTDOWN = "its replica shuts down"
ENDED_AT_SHUTDOWN = "the server shut down before the program started; only it had the archive"


async def release_or_end(run: Run, completion: CompletionWriter) -> None:
    """Return the execution to the queue. If no other replica can start it, end it: a caller may still wait for it."""
    if run.kill_requested.is_set():
        await completion.end(run, RunOutcome(reason="killed"))
    elif run.is_movable:
        await completion.release(run, RELEASED_AT_SHUTDOWN)
    else:
        await completion.fail(run, FailureType.LOST, ENDED_AT_SHUTDOWN)
