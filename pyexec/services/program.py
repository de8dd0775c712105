"""A program that runs: started, followed to its end, and held to its limits from outside its sandbox."""

import logging
from collections.abc import Callable, Coroutine
from typing import Any

import anyio

from pyexec.domain.events import Usage
from pyexec.domain.outcome import Ended
from pyexec.domain.spec import MEBIBYTE
from pyexec.errors import ExecutorError, SandboxBroken, SandboxRefused
from pyexec.sandbox.protocol import Exited, Go, Printed
from pyexec.sandbox.sandbox import Sandbox
from pyexec.services.live import Run

logger = logging.getLogger(__name__)

OUTSIDE_GRACE_SECONDS = 0.2
"""The supervisor reports a time-out itself, with usage; after this much longer it is taken from its hands."""
REASONS = frozenset({"exit", "timeout", "out_of_memory", "output_limit"})

Follow = Callable[[], Coroutine[Any, Any, Ended]]


async def watch(run: Run, sandbox: Sandbox, following: Follow) -> Ended:
    """Follows the program; the deadline, the output's size and a kill are held from out here."""
    limits = run.known().spec.limits
    ended = Ended(reason="timeout")
    async with anyio.create_task_group() as beside:
        beside.start_soon(_kill_when_wanted, run, sandbox, name=f"kill {run.id}")
        try:
            with anyio.move_on_after(limits.timeout_seconds + OUTSIDE_GRACE_SECONDS) as deadline:
                beside.start_soon(_leave_when_over, run, deadline, name=f"leave {run.id}")
                ended = await following()
        except (SandboxBroken, SandboxRefused) as error:
            reason = "killed" if run.kill_wanted.is_set() else "broken"
            ended = Ended(reason=reason, detail=str(error))
        beside.cancel_scope.cancel()
    return ended


async def start_and_follow(run: Run, sandbox: Sandbox, output_max: int) -> Ended:
    """Gives the go-ahead, then as `follow`. Raises `SandboxRefused` when it comes too late."""
    spec = run.known().spec
    await sandbox.go(
        Go(
            entrypoint=spec.entrypoint or "",
            args=spec.script_args,
            env=spec.env_vars,
            timeout=spec.limits.timeout_seconds,
            memory_bytes=spec.limits.memory_mb * MEBIBYTE,
            output_bytes=output_max,
            evaluate=spec.eval_last_expr,
        )
    )
    return await follow(run, sandbox, output_max)


async def follow(run: Run, sandbox: Sandbox, output_max: int) -> Ended:
    """Copies what the program prints, at most `output_max` bytes, until it has ended.

    Raises `SandboxBroken` when the sandbox ends before it says so."""
    async for frame in sandbox.frames():
        if isinstance(frame, Printed):
            room = output_max - len(run.journal)
            run.print(frame.stream, frame.data[:room])
            if len(frame.data) > room:
                return Ended(reason="output_limit")
        elif isinstance(frame, Exited):
            return _ended(frame)
    raise SandboxBroken("it ended before it said how the program ended")


async def _kill_when_wanted(run: Run, sandbox: Sandbox) -> None:
    await run.kill_wanted.wait()
    try:
        await sandbox.kill()
    except ExecutorError as error:
        logger.error("%s cannot be killed: %s", run.id, error)


async def _leave_when_over(run: Run, deadline: anyio.CancelScope) -> None:
    await run.over.wait()
    deadline.cancel()


def _ended(frame: Exited) -> Ended:
    return Ended(
        reason=frame.reason if frame.reason in REASONS else "broken",
        exit_code=frame.exit_code,
        signalled=frame.signalled,
        usage=Usage(cpu_seconds=frame.cpu_seconds, peak_memory_bytes=frame.peak_memory_bytes),
        result=frame.result,
        detail=f"it gave the unknown reason {frame.reason[:80]!r}",
    )
