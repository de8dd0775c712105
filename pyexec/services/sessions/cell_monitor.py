"""Follow a cell that runs in the sandbox of its session, and enforce its timeout and its kill from outside."""

import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial

import anyio
from attrs import evolve

from pyexec.aio import FailureLog, call_after, retry
from pyexec.domain.outcome import RunOutcome
from pyexec.errors import EngineError, SandboxBroken, SandboxRefused, Unavailable
from pyexec.sandbox.protocol import Exited, Frame, OutputChunk, ReportChunk
from pyexec.sandbox.session_protocol import CellEnded, CellStart
from pyexec.sandbox.session_receivers import CellFrame, pause_after
from pyexec.sandbox.session_sandbox import FENCED, SessionSandbox
from pyexec.services.active_runs import Run
from pyexec.services.run_monitor import (
    CPU_CHECK_SECONDS,
    CPU_GRACE_FACTOR,
    CPU_GRACE_SECONDS,
    OutputLimits,
    follow,
    outcome_of,
)

logger = logging.getLogger(__name__)

GRACE_SECONDS = 60.0
"""How much later than the supervisor this replica enforces the timeout of a cell. Before the supervisor counts, it
waits for the interpreter, at most 20 s. At the timeout, it needs two seconds for an interrupt, and at most 20 s for a
new interpreter."""
KILL_SECONDS = 45.0
"""How long the supervisor may take to end a cell after a kill or at a limit: two seconds for an interrupt, and twice at
most 20 s for a new interpreter. Then this replica removes the sandbox."""
ENGINE_CHECK_SECONDS = 5.0
DROPPED_AT_ONCE_BYTES = 64 * 1024
"""How much output is dropped between two pauses, which slow down a hostile image."""


async def follow_cell(
    run: Run, sandbox: SessionSandbox, start: CellStart, limits: OutputLimits
) -> RunOutcome:
    """Run the code in the interpreter, and copy its output and displays until it ends.

    If the supervisor does not end the cell in time, remove the sandbox."""
    outcome: RunOutcome | None = None
    limit = "timeout"
    async with anyio.create_task_group() as watching:
        following = anyio.CancelScope()

        async def enforce(reason: str, seconds: float) -> None:
            nonlocal limit
            await _wait_for_supervisor(sandbox, seconds)
            limit = reason
            following.cancel()

        async def kill() -> None:
            await _kill(run.id, sandbox, start.nonce)
            await enforce("killed", KILL_SECONDS)

        async def enforce_cpu_limit(seconds: float) -> None:
            await _wait_for_cpu_seconds(sandbox, CPU_GRACE_FACTOR * seconds + CPU_GRACE_SECONDS)
            await enforce("cpu_limit", KILL_SECONDS)

        def watch_soon(reason: str, seconds: float) -> None:
            watching.start_soon(enforce, reason, seconds, name=f"{reason} of {run.id}")

        if start.cpu_seconds is not None:
            watching.start_soon(enforce_cpu_limit, start.cpu_seconds, name=f"processor time of {run.id}")
        kill_soon = partial(watching.start_soon, kill, name=f"kill {run.id}")
        try:
            with (
                run.followed(kill_soon),
                call_after(start.timeout, partial(watch_soon, "timeout", GRACE_SECONDS)),
                following,
            ):
                frames = _frames(sandbox.run_cell(start))
                outcome = await follow(run, frames, limits)
                if not outcome.reported_by_supervisor:
                    watch_soon(outcome.reason, KILL_SECONDS)
                    outcome = await _stop(run, sandbox, start.nonce, frames, outcome)
        except (SandboxBroken, SandboxRefused, EngineError) as error:
            outcome = await _broken_outcome(run, sandbox, error)
        watching.cancel_scope.cancel()
    is_stuck = outcome is None or not outcome.reported_by_supervisor
    if is_stuck and not run.inactive.is_set() and not sandbox.ended.is_set():
        logger.error("the supervisor of %s did not end a cell in time; removing its sandbox", run.id)
        await retry(
            sandbox.remove,
            FailureLog(logger, f"removing the sandbox of {run.id}"),
            errors=(EngineError, Unavailable),
        )
    return outcome or RunOutcome(reason=limit)


async def _stop(
    run: Run, sandbox: SessionSandbox, start_nonce: str, frames: AsyncIterator[Frame], outcome: RunOutcome
) -> RunOutcome:
    """End a cell that exceeds a limit of the output log, and drop what it still prints. The session goes on, unless the
    supervisor does not end the cell in time: then this is cancelled."""
    dropped = 0
    await sandbox.kill_cell(start_nonce)
    async for frame in frames:
        if isinstance(frame, Exited):
            return evolve(outcome_of(frame, run), reason=outcome.reason, detail=outcome.detail)
        if isinstance(frame, OutputChunk | ReportChunk):
            dropped += len(frame.data)
        if dropped > DROPPED_AT_ONCE_BYTES:
            await pause_after(dropped)
            dropped = 0
    return outcome


async def _broken_outcome(run: Run, sandbox: SessionSandbox, error: Exception) -> RunOutcome:
    """Return how a cell ended whose sandbox is gone.

    If another replica has adopted the session, leave the cell to it."""
    if sandbox.end_reason == FENCED:
        run.detach()
    elif not run.kill_requested.is_set() and await sandbox.ran_out_of_memory():
        return RunOutcome(reason="out_of_memory")
    if run.kill_requested.is_set():
        return RunOutcome(reason="killed")
    return RunOutcome(reason="session_lost", detail=f"the sandbox of the session is gone: {error}")


async def _kill(execution_id: str, sandbox: SessionSandbox, start_nonce: str) -> None:
    failures = FailureLog(logger, f"killing {execution_id}")
    with suppress(SandboxBroken):  # what follows the cell reports it
        await retry(partial(sandbox.kill_cell, start_nonce), failures, errors=(EngineError, Unavailable))


async def _wait_for_supervisor(sandbox: SessionSandbox, seconds: float) -> None:
    """Return when the supervisor has had this much time to end its cell.

    While the engine does not answer, neither the request nor the end of the cell may have passed it. So the time begins
    again when it answers."""
    left = seconds
    while left > 0:
        step = min(left, ENGINE_CHECK_SECONDS)
        await anyio.sleep(step)
        left = left - step if await sandbox.engine_answers() else seconds


async def _wait_for_cpu_seconds(sandbox: SessionSandbox, seconds: float) -> None:
    """Return when the container has used this much more processor time than at the first answer of the engine."""
    first: float | None = None
    while True:
        used = await sandbox.cpu_seconds()
        if used is not None:
            first = used if first is None else first
            if used - first > seconds:
                return
        await anyio.sleep(CPU_CHECK_SECONDS)


async def _frames(frames: AsyncIterator[CellFrame]) -> AsyncIterator[Frame]:
    """Yield the frames of a cell as those of a program."""
    async for frame in frames:
        if not isinstance(frame, CellEnded):
            yield frame
            continue
        yield Exited(
            reason=frame.reason,
            exit_code=frame.exit_code,
            signalled=frame.signalled,
            cpu_seconds=frame.usage.cpu_seconds,
            peak_memory_bytes=frame.usage.peak_memory_bytes,
            result_truncated=frame.result_truncated,
            process_limit=frame.process_limit,
            interpreter_restarted=frame.interpreter_restarted,
        )
