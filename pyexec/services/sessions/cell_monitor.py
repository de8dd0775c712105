"""Follow a cell that runs in the sandbox of its session, and enforce its timeout and its kill from outside."""

import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial

import anyio
from anyio.abc import TaskGroup
from attrs import define, evolve, field

from pyexec.aio import FailureLog, call_after, retry
from pyexec.domain.outcome import RunOutcome
from pyexec.errors import EngineError, SandboxBroken, SandboxRefused, Unavailable
from pyexec.sandbox.protocol import Exited, Frame, OutputChunk, ReportChunk
from pyexec.sandbox.session_protocol import CellEnded, CellStart
from pyexec.sandbox.session_receivers import CellFrame, pause_after
from pyexec.sandbox.session_sandbox import FENCED, SessionSandbox
from pyexec.services.active_runs import Run
from pyexec.services.run_monitor import OutputLimits, follow, outcome_of, wait_for_cpu_seconds

logger = logging.getLogger(__name__)

GRACE_SECONDS = 60.0
"""How much later than the supervisor this replica enforces the timeout of a cell. Before the supervisor counts, it
waits for the interpreter, at most 20 s. At the timeout, it needs two seconds for an interrupt, and at most 20 s for a
new interpreter."""
KILL_SECONDS = 45.0
"""How long the supervisor may take to end a cell after a kill or at a limit: two seconds for an interrupt, and twice at
most 20 s for a new interpreter. Then this replica removes the sandbox."""
ENGINE_CHECK_SECONDS = 5.0
"""The interval of the checks whether the engine answers."""
DROPPED_AT_ONCE_BYTES = 64 * 1024
"""How much output is dropped between two pauses, which slow down a hostile image."""


@define(eq=False)
class _Watchdog:
    """Stops following a cell that its supervisor does not end in time. `limit` is the reason."""

    run: Run
    sandbox: SessionSandbox
    nonce: str
    tasks: TaskGroup
    following: anyio.CancelScope = field(factory=anyio.CancelScope, init=False)
    limit: str = field(default="timeout", init=False)

    def kill_soon(self) -> None:
        """Kill the cell in the background."""
        self.tasks.start_soon(self._kill, name=f"kill {self.run.id}")

    def limit_cpu_soon(self, seconds: float) -> None:
        """Enforce the limit on processor time in the background."""
        self.tasks.start_soon(self._limit_cpu, seconds, name=f"processor time of {self.run.id}")

    def enforce_soon(self, reason: str, seconds: float) -> None:
        """Stop following the cell if the supervisor does not end it within this time."""
        self.tasks.start_soon(self._enforce, reason, seconds, name=f"{reason} of {self.run.id}")

    async def _kill(self) -> None:
        failures = FailureLog(logger, f"killing {self.run.id}")
        with suppress(SandboxBroken):  # what follows the cell reports it
            kill = partial(self.sandbox.kill_cell, self.nonce)
            await retry(kill, failures, errors=(EngineError, Unavailable))
        await self._enforce("killed", KILL_SECONDS)

    async def _limit_cpu(self, seconds: float) -> None:
        await wait_for_cpu_seconds(self.sandbox.cpu_seconds, seconds)
        await self._enforce("cpu_limit", KILL_SECONDS)

    async def _enforce(self, reason: str, seconds: float) -> None:
        await _wait_for_supervisor(self.sandbox, seconds)
        self.limit = reason
        self.following.cancel()


async def follow_cell(
    run: Run, sandbox: SessionSandbox, start: CellStart, limits: OutputLimits
) -> RunOutcome:
    """Run the code in the interpreter, and copy its output and displays until it ends.

    If the supervisor does not end the cell in time, remove the sandbox."""
    outcome: RunOutcome | None = None
    async with anyio.create_task_group() as tasks:
        watchdog = _Watchdog(run, sandbox, start.nonce, tasks)
        if start.cpu_seconds is not None:
            watchdog.limit_cpu_soon(start.cpu_seconds)
        try:
            with (
                run.followed(watchdog.kill_soon),
                call_after(start.timeout, partial(watchdog.enforce_soon, "timeout", GRACE_SECONDS)),
                watchdog.following,
            ):
                frames = _frames(sandbox.run_cell(start))
                outcome = await follow(run, frames, limits)
                if not outcome.reported_by_supervisor:
                    watchdog.enforce_soon(outcome.reason, KILL_SECONDS)
                    outcome = await _stop(run, sandbox, start.nonce, frames, outcome)
        except (SandboxBroken, SandboxRefused, EngineError) as error:
            outcome = await _broken_outcome(run, sandbox, error)
        tasks.cancel_scope.cancel()
    is_stuck = outcome is None or not outcome.reported_by_supervisor
    if is_stuck and not run.inactive.is_set() and not sandbox.ended.is_set():
        logger.error("the supervisor of %s did not end a cell in time; removing its sandbox", run.id)
        await retry(
            sandbox.remove,
            FailureLog(logger, f"removing the sandbox of {run.id}"),
            errors=(EngineError, Unavailable),
        )
    return outcome or RunOutcome(reason=watchdog.limit)


async def _stop(
    run: Run, sandbox: SessionSandbox, nonce: str, frames: AsyncIterator[Frame], outcome: RunOutcome
) -> RunOutcome:
    """End a cell that exceeds a limit of the output log, and drop the rest of its output. The session stays open.

    If the supervisor does not end the cell in time, the watchdog cancels this."""
    dropped = 0
    await sandbox.kill_cell(nonce)
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
    """Return the outcome of a cell whose sandbox is gone.

    If another replica has adopted the session, leave the cell to it."""
    if sandbox.end_reason == FENCED:
        run.detach()
    elif not run.kill_requested.is_set() and await sandbox.ran_out_of_memory():
        return RunOutcome(reason="out_of_memory")
    if run.kill_requested.is_set():
        return RunOutcome(reason="killed")
    return RunOutcome(reason="session_lost", detail=f"the sandbox of the session is gone: {error}")


async def _wait_for_supervisor(sandbox: SessionSandbox, seconds: float) -> None:
    """Wait until the supervisor has had this much time to end its cell.

    A silent engine may delay the request to end the cell, and the report of its end. So the time begins again when the
    engine answers."""
    left = seconds
    while left > 0:
        step = min(left, ENGINE_CHECK_SECONDS)
        await anyio.sleep(step)
        left = left - step if await sandbox.engine_answers() else seconds


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
