"""A program that runs: started, followed to its end, and held to its limits from outside its sandbox."""

import logging
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
from attrs import frozen

from pyexec.aio import FailureLog
from pyexec.domain.events import Usage
from pyexec.domain.outcome import RunOutcome
from pyexec.domain.spec import MEBIBYTE, Spec
from pyexec.errors import EngineError, SandboxBroken, SandboxRefused, Unavailable
from pyexec.guest.wire import RESULT_BYTES_MAX
from pyexec.sandbox.protocol import Evaluated, Exited, Go, Plan, Printed
from pyexec.sandbox.sandbox import Sandbox
from pyexec.services.active_runs import Run
from pyexec.services.output_files import OutputFileLimits, OutputFileSpool

logger = logging.getLogger(__name__)

OUTSIDE_GRACE_SECONDS = 0.2
"""The supervisor reports a time-out itself, with usage; after this much longer it is taken from its hands."""
PATIENT_GRACE_SECONDS = 4.0
"""The same for a run whose files only the supervisor can bring; it ends itself by its own alarm a second later."""
OUT_OF_REACH_SECONDS = 60.0
"""How much longer a program is waited for whose engine does not answer: its sandbox keeps its last words so long."""
RETRY_SECONDS = 1.0
CHANGES_MAX = 100_000
"""Output is kept in its order: one that changes between its streams all the time costs more than its bytes."""
REASONS = frozenset({"exit", "timeout", "out_of_memory", "output_limit"})

Follow = Callable[[], Coroutine[Any, Any, RunOutcome]]


@frozen(kw_only=True)
class Bounds:
    """The operator's bounds on what comes out of a run."""

    output_bytes: int
    files: OutputFileLimits


async def watch(run: Run, sandbox: Sandbox, following: Follow, bounds: Bounds) -> RunOutcome:
    """Follows the program, and takes the files that it is to bring back; the deadline, the output's size and a kill
    are held from out here."""
    spec = run.known().spec
    grace = PATIENT_GRACE_SECONDS if spec.output_files else OUTSIDE_GRACE_SECONDS
    seconds = spec.limits.timeout_seconds
    ended: RunOutcome | None = None
    async with anyio.create_task_group() as beside:
        beside.start_soon(_kill_when_wanted, run, sandbox, name=f"kill {run.id}")
        try:
            with anyio.CancelScope() as scope:
                beside.start_soon(_leave_when_over, run, scope, name=f"leave {run.id}")
                beside.start_soon(_leave_after, seconds, grace, sandbox, scope, name=f"deadline of {run.id}")
                ended = await following()
            if ended is not None and ended.reported_by_supervisor and spec.output_files:
                run.output_files = OutputFileSpool(bounds.files)
                with anyio.CancelScope() as taking:
                    beside.start_soon(_leave_when_over, run, taking, name=f"leave files {run.id}")
                    await run.output_files.take(run.id, sandbox)
        except (SandboxBroken, SandboxRefused) as error:
            ended = RunOutcome(reason=_broken_by(run, sandbox), detail=str(error))
        beside.cancel_scope.cancel()
    return ended or RunOutcome(reason=_broken_by(run, sandbox) if sandbox.out_of_reach else "timeout")


def _broken_by(run: Run, sandbox: Sandbox) -> str:
    """Why the sandbox does not say how its program has ended."""
    if run.kill_wanted.is_set():
        return "killed"
    return "lost" if sandbox.was_out_of_reach else "broken"


def plan_of(spec: Spec) -> Plan:
    """What a sandbox is told of the program before the go-ahead."""
    return Plan(
        entrypoint=spec.entrypoint or "",
        args=spec.script_args,
        env=spec.env_vars,
        evaluate=spec.eval_last_expr,
    )


async def start_and_follow(run: Run, sandbox: Sandbox, bounds: Bounds) -> RunOutcome:
    """Gives the go-ahead, then as `follow`. Raises `SandboxRefused` when it comes too late."""
    spec = run.known().spec
    await sandbox.go(
        Go(
            timeout=spec.limits.timeout_seconds,
            memory_bytes=spec.limits.memory_mb * MEBIBYTE,
            output_bytes=bounds.output_bytes,
            output_files=spec.output_files,
            file_limits=bounds.files.limits,
        )
    )
    return await follow(run, sandbox, bounds)


async def follow(run: Run, sandbox: Sandbox, bounds: Bounds) -> RunOutcome:
    """Copies what the program prints, at most as many bytes as it may, until it has ended.

    Raises `SandboxBroken` when the sandbox ends before it says so."""
    result = b""
    async for frame in sandbox.frames():
        if isinstance(frame, Printed):
            room = bounds.output_bytes + run.output_log.setup_bytes - len(run.output_log)
            run.print(frame.stream, frame.data[:room])
            if len(frame.data) > room:
                return RunOutcome(reason="output_limit")
            if run.output_log.segment_count > CHANGES_MAX:
                told = f"the program changed {CHANGES_MAX} times between stdout and stderr and was stopped"
                return RunOutcome(reason="output_limit", detail=told)
        elif isinstance(frame, Evaluated):
            result += frame.data
            if len(result) > RESULT_BYTES_MAX:
                raise SandboxBroken("the result is longer than it may be")
        elif isinstance(frame, Exited):
            return _ended(frame, result)
    raise SandboxBroken("it ended before it said how the program ended")


async def _kill_when_wanted(run: Run, sandbox: Sandbox) -> None:
    await run.kill_wanted.wait()
    killing = FailureLog(logger, f"killing {run.id}")
    while True:
        try:
            return await sandbox.kill()
        except (EngineError, Unavailable) as error:
            killing.failed(error)
            await anyio.sleep(RETRY_SECONDS)


async def _leave_when_over(run: Run, scope: anyio.CancelScope) -> None:
    await run.over.wait()
    scope.cancel()


async def _leave_after(seconds: float, grace: float, sandbox: Sandbox, scope: anyio.CancelScope) -> None:
    """At the deadline; a program out of reach may have ended before it, and then says so a little later."""
    await anyio.sleep(seconds)
    async with anyio.create_task_group() as asking:
        asking.start_soon(sandbox.check_in_reach, name="is the engine there")
        await anyio.sleep(grace)  # not in one: who was asleep first hears what was said meanwhile
    if sandbox.out_of_reach:
        await anyio.sleep(OUT_OF_REACH_SECONDS)
    scope.cancel()


def _ended(frame: Exited, result: bytes) -> RunOutcome:
    known = frame.reason in REASONS
    return RunOutcome(
        reason=frame.reason if known else "broken",
        exit_code=frame.exit_code,
        signalled=frame.signalled,
        usage=Usage(cpu_seconds=frame.cpu_seconds, peak_memory_bytes=frame.peak_memory_bytes),
        result=result.decode("utf-8", "ignore") or None,  # a cut may fall into a character
        result_truncated=frame.result_truncated,
        detail="" if known else f"it gave the unknown reason {frame.reason[:80]!r}",
    )
