"""End a run that has not started when the server shuts down, or release it so that another replica can start it. Log
what a shutdown ends."""

import logging
from collections.abc import Sequence

from pyexec.domain.events import Failed, FailureType
from pyexec.domain.outcome import RunOutcome
from pyexec.services.active_runs import Run
from pyexec.services.completion import CompletionWriter

logger = logging.getLogger(__name__)

LINES_MAX = 20
"""How many executions, and how many sessions, the log names at a shutdown."""
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


def log_lost(runs: Sequence[Run]) -> None:
    """Log those of the runs that have ended as lost."""
    ends = ((run.id, run.execution.terminal) for run in runs if run.has_ended)
    lost = [
        f"{execution_id} is lost: {end.error}"
        for execution_id, end in ends
        if isinstance(end, Failed) and end.error_type == FailureType.LOST
    ]
    _log_first(lost, "executions are lost")


def log_closed(session_ids: Sequence[str]) -> None:
    """Log the sessions that were closed."""
    _log_first([f"session {session_id} is closed" for session_id in session_ids], "sessions are closed")


def _log_first(lines: Sequence[str], rest: str) -> None:
    """Log the first lines, and how many more there are. `rest` says what has happened to those."""
    for line in lines[:LINES_MAX]:
        logger.warning("shutdown: %s", line)
    if len(lines) > LINES_MAX:
        logger.warning("shutdown: %d more %s", len(lines) - LINES_MAX, rest)
