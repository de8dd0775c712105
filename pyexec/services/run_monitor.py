"""Monitor a run: start its program, copy its output, and enforce its limits from outside the sandbox."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
from attrs import evolve, frozen

from pyexec.aio import FailureLog, call_after, retry
from pyexec.domain.events import Usage
from pyexec.domain.outcome import RunOutcome
from pyexec.domain.output_log import Stream
from pyexec.domain.spec import MEBIBYTE, Spec
from pyexec.errors import EngineError, SandboxBroken, SandboxRefused, Unavailable
from pyexec.sandbox.protocol import Exited, Frame, OutputChunk, ProgramPlan, ReportChunk, StartSignal
from pyexec.sandbox.reports import ReportReader
from pyexec.sandbox.sandbox import Sandbox
from pyexec.services.active_runs import Run
from pyexec.services.output_files import OutputFileLimits, OutputFileSpool

logger = logging.getLogger(__name__)

GRACE_SECONDS = 1.0
"""How much later than the supervisor the monitor enforces the deadline. The supervisor's report is better: the program
can flush its unfinished lines, and the usage is exact."""
GRACE_WITH_FILES_SECONDS = 4.0
"""The same for a run with output files: only the supervisor can send them, so it gets more time. It must be shorter
than the supervisor's own grace of five seconds."""
KILL_REPORT_SECONDS = 0.3
"""How long the supervisor may take to end the program after a kill request. Then the sandbox is killed."""
UNREACHABLE_SECONDS = 60.0
"""Additional time for a program whose engine does not answer. The sandbox keeps its last frames longer than that."""
CPU_CHECK_SECONDS = 1.0
CPU_GRACE_FACTOR, CPU_GRACE_SECONDS, SUPERVISOR_SHARE = 2.0, 1.0, 0.1
"""The monitor stops a program at this multiple of its limit of processor time, plus these seconds, plus this share of
the elapsed time. By then, the supervisor should have stopped it and reported the usage. The engine's count includes the
supervisor, which checks limits also while the program waits: up to 100 times a second, for 0.2 ms."""
STREAM_CHANGES_MAX = 100_000
"""Each change between stdout and stderr starts a new segment of the output log, which takes memory of the server."""
OUTPUT_AT_ONCE_BYTES = 16 * 1024
"""Other tasks run after this much output. It takes up to 4 ms, because the server looks for tracebacks in stderr."""
SUPERVISOR_REASONS = frozenset(
    {"exit", "timeout", "cpu_limit", "out_of_memory", "disk_limit", "process_limit", "output_limit"}
)

FollowProgram = Callable[[], Coroutine[Any, Any, RunOutcome]]
"""Starts the program if it has not started, and follows it to its end."""


@frozen(kw_only=True)
class OutputLimits:
    """The operator's limits on the output of a run: bytes of output and of displays, and output files."""

    output_bytes: int
    display_bytes: int
    files: OutputFileLimits


async def monitor(
    run: Run, sandbox: Sandbox, follow_program: FollowProgram, limits: OutputLimits
) -> RunOutcome:
    """Run `follow_program` to the program's end, and receive the output files. Return how the program ended.

    The deadline, a kill request or a change of owner ends this even if the guest does not react."""
    spec = run.execution.spec
    grace = GRACE_WITH_FILES_SECONDS if spec.output_files else GRACE_SECONDS
    ended: RunOutcome | None = None
    limit = "timeout"
    watching = False

    def watch(task: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        nonlocal watching
        watching = True
        watchers.start_soon(task, name=f"{name} {run.id}")

    async def enforce_cpu_limit(seconds: float, scope: anyio.CancelScope) -> None:
        nonlocal limit
        await wait_for_cpu_seconds(partial(_cpu_seconds, sandbox), seconds)
        limit = "cpu_limit"
        scope.cancel()

    async with anyio.create_task_group() as watchers:
        try:
            with run.followed(partial(watch, partial(_kill, run.id, sandbox), "kill")):
                with anyio.CancelScope() as scope:
                    deadline = partial(_cancel_at_deadline, grace, sandbox, scope)
                    with call_after(spec.limits.timeout_seconds, partial(watch, deadline, "deadline of")):
                        if spec.limits.cpu_seconds is not None:
                            enforce = partial(enforce_cpu_limit, spec.limits.cpu_seconds, scope)
                            watch(enforce, "processor time of")
                        ended = await follow_program()
                if (
                    ended is not None
                    and ended.reported_by_supervisor
                    and ended.reason != "killed"
                    and spec.output_files
                ):
                    run.output_files = OutputFileSpool(limits.files, len(spec.output_files))
                    await run.output_files.receive(run.id, sandbox)
        except (SandboxBroken, SandboxRefused) as error:
            ended = RunOutcome(reason=await _broken_reason(run, sandbox), detail=str(error))
        outcome = ended or await _unreported_outcome(run, sandbox, limit)
        if outcome.reason == "output_limit" and outcome.usage is None:
            outcome = evolve(outcome, usage=await sandbox.usage())
        if watching:
            watchers.cancel_scope.cancel()
    return outcome


def program_plan(spec: Spec, display_bytes: int) -> ProgramPlan:
    """Return the plan, which the supervisor gets before the start signal."""
    return ProgramPlan(
        entrypoint=spec.entrypoint or "",
        args=spec.script_args,
        env=spec.env_vars,
        evaluate=spec.eval_last_expr,
        display_bytes=_display_bytes(spec, display_bytes) if spec.reports else None,
    )


def _display_bytes(spec: Spec, limit: int) -> int:
    return limit if spec.capture_displays else 0


async def start_and_follow(
    run: Run, sandbox: Sandbox, limits: OutputLimits, nonce: str, reuse: bool
) -> RunOutcome:
    """Send the start signal with this nonce, then follow. Raises `SandboxRefused` if the signal arrives too late."""
    spec = run.execution.spec
    await sandbox.start_program(
        StartSignal(
            nonce=nonce,
            reuse=reuse,
            timeout=spec.limits.timeout_seconds,
            memory_bytes=spec.limits.memory_mb * MEBIBYTE,
            disk_bytes=spec.limits.disk_mb * MEBIBYTE,
            output_bytes=limits.output_bytes,
            output_files=spec.output_files,
            file_limits=limits.files.limits,
            cpu_seconds=spec.limits.cpu_seconds,
        )
    )
    return await follow(run, sandbox.frames(), limits)


async def follow(run: Run, frames: AsyncIterator[Frame], limits: OutputLimits) -> RunOutcome:
    """Copy the program's output and displays into the run's output log, up to the limits, until the program ends.

    Raises `SandboxBroken` if the sandbox ends without reporting the program's end, or sends any other frame."""
    log = run.output_log
    if run.execution.spec.reports:
        run.reports = ReportReader(_display_bytes(run.execution.spec, limits.display_bytes))
    yielded_at = len(log)
    async for frame in frames:
        if isinstance(frame, OutputChunk):
            remaining = limits.output_bytes + log.setup_bytes + log.size_of(Stream.DISPLAY) - len(log)
            data = frame.data[:remaining]
            for at in range(0, len(data), OUTPUT_AT_ONCE_BYTES):
                run.write_output(frame.stream, data[at : at + OUTPUT_AT_ONCE_BYTES])
                if len(log) - yielded_at >= OUTPUT_AT_ONCE_BYTES:
                    yielded_at = len(log)
                    await anyio.lowlevel.checkpoint()
            if len(frame.data) > remaining:
                return RunOutcome(reason="output_limit")
            if log.segment_count > STREAM_CHANGES_MAX:
                detail = f"the program changed {STREAM_CHANGES_MAX} times between stdout and stderr and was stopped"
                return RunOutcome(reason="output_limit", detail=detail)
        elif isinstance(frame, ReportChunk):
            if run.reports is None:
                raise SandboxBroken("the sandbox sent a report that the request did not ask for")
            for display in run.reports.feed(frame.data):
                if display:
                    run.write_output(Stream.DISPLAY, display)
                await anyio.lowlevel.checkpoint()
        elif isinstance(frame, Exited):
            return outcome_of(frame, run)
        else:  # no limit would bound their number
            raise SandboxBroken(f"the sandbox sent a {type(frame).__name__} frame while the program ran")
    raise SandboxBroken("the sandbox ended before it reported how the program ended")


def outcome_of(frame: Exited, run: Run) -> RunOutcome:
    """Return the outcome that the supervisor has reported."""
    # A requested restart of a session's interpreter kills the running cell, too.
    killed = run.kill_requested.is_set() or frame.interpreter_restarted
    is_known = frame.reason in SUPERVISOR_REASONS or (frame.reason == "killed" and killed)
    if run.reports is not None:
        run.reports.finish(cut=frame.result_truncated)
    return RunOutcome(
        reason=frame.reason if is_known else "broken",
        exit_code=frame.exit_code,
        signalled=frame.signalled,
        usage=Usage(cpu_seconds=frame.cpu_seconds, peak_memory_bytes=frame.peak_memory_bytes),
        result=run.reports.result if run.reports else None,
        result_truncated=run.reports is not None and run.reports.result_truncated,
        process_limit=frame.process_limit,
        reported_by_supervisor=True,
        interpreter_restarted=frame.interpreter_restarted,
        detail="" if is_known else f"it reported the unknown reason {frame.reason[:80]!r}",
    )


async def _unreported_outcome(run: Run, sandbox: Sandbox, limit: str) -> RunOutcome:
    """Return the outcome at this limit, or after a change of owner, if the supervisor has reported none."""
    if sandbox.engine_unreachable:
        return RunOutcome(reason=await _broken_reason(run, sandbox))
    return RunOutcome(reason=limit, usage=None if run.inactive.is_set() else await sandbox.usage())


async def _broken_reason(run: Run, sandbox: Sandbox) -> str:
    """Return why the sandbox does not report how its program ended.

    A program can make the kernel kill the supervisor when memory runs out."""
    if run.kill_requested.is_set():
        return "killed"
    if not sandbox.engine_unreachable and await sandbox.ran_out_of_memory():
        return "out_of_memory"
    return "lost" if sandbox.engine_was_unreachable else "broken"


async def _kill(execution_id: str, sandbox: Sandbox) -> None:
    with anyio.move_on_after(KILL_REPORT_SECONDS):
        if await sandbox.request_kill():
            await anyio.sleep_forever()  # the supervisor's report cancels this task
    await retry(
        sandbox.kill, FailureLog(logger, f"killing {execution_id}"), errors=(EngineError, Unavailable)
    )


async def _cpu_seconds(sandbox: Sandbox) -> float | None:
    used = await sandbox.usage()
    return None if used is None else used.cpu_seconds


async def wait_for_cpu_seconds(used: Callable[[], Awaitable[float | None]], limit: float) -> None:
    """Return when a container has used much more processor time than this limit, as the engine counts it, since the
    first answer of the engine. `used` returns None if the engine does not answer.

    While the engine does not answer, the supervisor alone enforces the limit."""
    begun = anyio.current_time()
    first: float | None = None
    while True:
        seconds = await used()
        if seconds is not None:
            first = seconds if first is None else first
            supervisor = SUPERVISOR_SHARE * (anyio.current_time() - begun)
            if seconds - first > CPU_GRACE_FACTOR * limit + CPU_GRACE_SECONDS + supervisor:
                return
        await anyio.sleep(CPU_CHECK_SECONDS)


async def _cancel_at_deadline(grace: float, sandbox: Sandbox, scope: anyio.CancelScope) -> None:
    """Cancel after the deadline. If the engine does not answer, wait longer: the program may have ended in time."""
    async with anyio.create_task_group() as checking:
        checking.start_soon(sandbox.check_engine, name="check the engine")
        # The grace begins at the deadline: after a suspension of the host, `follow` first reads the frames in the pipe.
        await anyio.sleep(grace)
    if sandbox.engine_unreachable:
        await anyio.sleep(UNREACHABLE_SECONDS)
    scope.cancel()
