"""Runs claimed executions: copy in, start, watch, classify, write the end, clean up."""

import logging
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import anyio
from anyio.abc import TaskGroup, TaskStatus
from attrs import frozen

from pyexec.domain.events import Adopted, Claimed, Event, Failed, FailureType, Running, Terminal, Usage
from pyexec.domain.execution import Execution, Phase, fold
from pyexec.domain.journal import Stream
from pyexec.domain.outcome import Ended, terminal_event
from pyexec.domain.spec import MEBIBYTE, Spec
from pyexec.errors import (
    Conflict,
    EngineError,
    ExecutorError,
    ImageUnavailable,
    SandboxBroken,
    SandboxRefused,
    Unavailable,
)
from pyexec.ports import BlobStore, EventLog, IdempotencyKey
from pyexec.sandbox.pool import Pool, SandboxKind
from pyexec.sandbox.protocol import Exited, Go, Printed
from pyexec.sandbox.sandbox import Sandbox
from pyexec.services.clock import nonce, now
from pyexec.services.live import Live, Run
from pyexec.services.outputs import store_output
from pyexec.services.slots import Slot, Slots

logger = logging.getLogger(__name__)

OUTSIDE_GRACE_SECONDS = 0.2
"""The supervisor reports a time-out itself, with usage; after this much longer it is taken from its hands."""
ANSWER_SECONDS = 0.005
"""Removing a container keeps the engine's processor busy for longer than answering takes."""
TRACEBACK_BYTES = 64 * 1024
RETRY_SECONDS = 0.5
REASONS = frozenset({"exit", "timeout", "out_of_memory", "output_limit"})


@frozen(kw_only=True)
class RunnerConfig:
    """Who this replica is, and what bounds a run's output, in bytes."""

    replica: str
    engine: str
    output_bytes_max: int


class Runner:
    """Carries executions from their claim to their end; `serve` must run around it."""

    def __init__(
        self, config: RunnerConfig, *, log: EventLog, blobs: BlobStore, pool: Pool, slots: Slots, live: Live
    ) -> None:
        self.config = config
        self._log = log
        self._blobs = blobs
        self._pool = pool
        self._slots = slots
        self._live = live
        self._tasks: TaskGroup | None = None

    async def serve(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Holds the runs. On cancellation, those that still run end as `lost`."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            task_status.started()
            await anyio.sleep_forever()

    async def drain(self, seconds: float) -> None:
        """Takes no new work; returns when all runs have ended, or after so many seconds."""
        self._slots.close()
        with anyio.move_on_after(seconds):
            for run in self._live.all():
                await run.ended.wait()

    async def sandbox_for(self, spec: Spec) -> Sandbox:
        """A sandbox with the limits of `spec`."""
        return await self._pool.take(kind_of(spec))

    async def start(
        self,
        run: Run,
        sandbox: Sandbox,
        slot: Slot,
        spec: Spec,
        events: Sequence[Event],
        key: IdempotencyKey | None = None,
    ) -> None:
        """Writes `events` and `Running` in one step, then carries the run out in the background.

        The archive must be unpacked in `sandbox`. On return the runner owns sandbox and slot; when it raises
        (`Conflict`, `KeyTaken`, `Unavailable`) the caller still does, and nothing has started."""
        running = Running(at=now(), nonce=nonce(), engine=self.config.engine, container=sandbox.container_id)
        with anyio.CancelScope(shield=True):
            written = [*events, running]
            await self._log.append(run.id, run.seq, written, key=key)
            run.record(written)
            self._live.add(run)
            follow = partial(self._start_and_follow, run, sandbox, spec)
            self._spawn(partial(self._carry_out, run, sandbox, slot, follow), name=f"run {run.id}")

    def start_claimed(self, execution: Execution, events: Sequence[Event], slot: Slot) -> None:
        """Takes over an execution that this replica has just claimed; its archive lies in the blob store."""
        run = Run(execution.id)
        run.record(events)
        self._live.add(run)
        self._spawn(partial(self._run_claimed, run, slot), name=f"claimed {run.id}")

    async def adopt(
        self, execution: Execution, events: Sequence[Event], sandbox: Sandbox, slot: Slot
    ) -> None:
        """Follows a program that a vanished replica has started on this engine, as if it had been ours.

        On return the runner owns sandbox and slot; raises `Conflict` when the execution has moved on."""
        adopted = Adopted(at=now(), nonce=nonce(), replica=self.config.replica)
        with anyio.CancelScope(shield=True):
            await self._log.append(execution.id, execution.seq, [adopted])
            run = Run(execution.id)
            run.record([*events, adopted])
            self._live.add(run)
            follow = partial(self._follow, run, sandbox)
            self._spawn(partial(self._carry_out, run, sandbox, slot, follow), name=f"adopted {run.id}")

    def _spawn(self, task: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        if self._tasks is None:
            raise RuntimeError("the runner is not serving")
        self._tasks.start_soon(task, name=name)

    async def _run_claimed(self, run: Run, slot: Slot) -> None:
        """From the claim to the go-ahead; what fails on the way is the execution's end."""
        sandbox: Sandbox | None = None
        handed_over = False
        try:
            with run.preparation:
                sandbox = await self._prepare(run)
                await self.start(run, sandbox, slot, run.known().spec, ())
                handed_over = True
            if not handed_over:
                await self._end(run, Ended(reason="killed"))
        except Conflict:
            run.catch_up(await self._log.read(run.id))
            await self._end(run, Ended(reason="killed" if run.kill_wanted.is_set() else "broken"))
        except ImageUnavailable as error:
            await self._fail(run, FailureType.IMAGE_UNAVAILABLE, str(error))
        except (SandboxBroken, SandboxRefused, EngineError, Unavailable) as error:
            await self._fail(run, FailureType.INTERNAL, f"the sandbox could not be prepared: {error}")
        finally:
            if not handed_over:
                with anyio.CancelScope(shield=True):
                    await self._clean_up(run, sandbox, slot)

    async def _prepare(self, run: Run) -> Sandbox:
        """A sandbox with the execution's archive in it."""
        execution = run.known()
        if execution.payload is None:
            raise SandboxBroken("the execution has no archive")
        sandbox = await self.sandbox_for(execution.spec)
        try:
            async for chunk in self._blobs.read(execution.payload):
                await sandbox.send_archive(chunk)
            await sandbox.unpack(execution.spec.stdin.encode())
        except BaseException:
            with anyio.CancelScope(shield=True):
                await sandbox.remove()
            raise
        return sandbox

    async def _carry_out(
        self, run: Run, sandbox: Sandbox, slot: Slot, follow: Callable[[], Coroutine[Any, Any, Ended]]
    ) -> None:
        """From the go-ahead to the end."""
        try:
            ended = await self._watch(run, sandbox, follow)
            await self._end(run, ended)
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await self._fail(run, FailureType.LOST, "the server was stopped while the program ran")
            raise
        finally:
            with anyio.CancelScope(shield=True):
                await self._clean_up(run, sandbox, slot)

    async def _watch(
        self, run: Run, sandbox: Sandbox, follow: Callable[[], Coroutine[Any, Any, Ended]]
    ) -> Ended:
        """Follows the program; the deadline, the output's size and a kill are held from out here."""
        limits = run.known().spec.limits
        ended = Ended(reason="timeout")
        async with anyio.create_task_group() as beside:
            beside.start_soon(self._kill_when_wanted, run, sandbox, name=f"kill {run.id}")
            try:
                with anyio.move_on_after(limits.timeout_seconds + OUTSIDE_GRACE_SECONDS):
                    ended = await follow()
            except (SandboxBroken, SandboxRefused) as error:
                reason = "killed" if run.kill_wanted.is_set() else "broken"
                ended = Ended(reason=reason, detail=str(error))
            beside.cancel_scope.cancel()
        return ended

    async def _start_and_follow(self, run: Run, sandbox: Sandbox, spec: Spec) -> Ended:
        await sandbox.go(
            Go(
                entrypoint=spec.entrypoint or "",
                args=spec.script_args,
                env=spec.env_vars,
                timeout=spec.limits.timeout_seconds,
                memory_bytes=spec.limits.memory_mb * MEBIBYTE,
                output_bytes=self.config.output_bytes_max,
                evaluate=spec.eval_last_expr,
            )
        )
        return await self._follow(run, sandbox)

    async def _follow(self, run: Run, sandbox: Sandbox) -> Ended:
        async for frame in sandbox.frames():
            if isinstance(frame, Printed):
                room = self.config.output_bytes_max - len(run.journal)
                run.print(frame.stream, frame.data[:room])
                if len(frame.data) > room:
                    return Ended(reason="output_limit")
            elif isinstance(frame, Exited):
                return _ended(frame)
        raise SandboxBroken("it ended before it said how the program ended")

    async def _kill_when_wanted(self, run: Run, sandbox: Sandbox) -> None:
        await run.kill_wanted.wait()
        try:
            await sandbox.kill()
        except ExecutorError as error:
            logger.error("%s cannot be killed: %s", run.id, error)

    async def _end(self, run: Run, ended: Ended) -> None:
        """Writes the terminal event for what was seen; survives cancellation."""
        execution = run.known()
        with anyio.CancelScope(shield=True):
            tail = run.journal.bytes_of(Stream.STDERR)[-TRACEBACK_BYTES:]
            output = await store_output(self._blobs, run.id, run.journal)
            terminal = terminal_event(
                ended,
                limits=execution.spec.limits,
                output_max=self.config.output_bytes_max,
                stderr_tail=tail.decode("utf-8", "replace"),
                output=output,
                at=now(),
                nonce=nonce(),
            )
            await self._write_end(run, terminal)

    async def _fail(self, run: Run, kind: FailureType, error: str) -> None:
        if run.ended.is_set():
            return
        with anyio.CancelScope(shield=True):
            output = await store_output(self._blobs, run.id, run.journal)
            await self._write_end(
                run, Failed(at=now(), nonce=nonce(), error_type=kind, error=error, output=output)
            )

    async def _write_end(self, run: Run, terminal: Terminal) -> None:
        """Appends the terminal event where the log stands now. A conflict means that somebody else wrote
        meanwhile (a wish to kill it, or its end): read again, and write only if it is still open."""
        while not run.ended.is_set():
            try:
                await self._log.append(run.id, run.seq, [terminal])
                run.record([terminal])
            except Conflict:
                run.catch_up(await self._log.read(run.id))
            except Unavailable as error:
                logger.error("the end of %s cannot be written, trying again: %s", run.id, error)
                await anyio.sleep(RETRY_SECONDS)

    async def _clean_up(self, run: Run, sandbox: Sandbox | None, slot: Slot) -> None:
        """Only after the end is durable, and a moment later: whoever waits for the result goes first."""
        self._live.remove(run)
        try:
            await anyio.sleep(ANSWER_SECONDS)
            if sandbox is not None:
                await sandbox.remove()
        except ExecutorError as error:
            logger.error("the sandbox of %s is left behind: %s", run.id, error)
        finally:
            self._slots.release(slot)


def kind_of(spec: Spec) -> SandboxKind:
    """The sandbox that a spec needs."""
    limits = spec.limits
    return SandboxKind(
        image=spec.docker_image,
        memory_mb=limits.memory_mb,
        disk_mb=limits.disk_mb,
        cpu_shares=limits.cpu_shares,
        cpus=limits.cpus,
        network=not limits.network_disabled,
    )


def _ended(frame: Exited) -> Ended:
    return Ended(
        reason=frame.reason if frame.reason in REASONS else "broken",
        exit_code=frame.exit_code,
        signalled=frame.signalled,
        usage=Usage(cpu_seconds=frame.cpu_seconds, peak_memory_bytes=frame.peak_memory_bytes),
        result=frame.result,
        detail=f"it gave the unknown reason {frame.reason[:80]!r}",
    )


async def claim(log: EventLog, execution_id: str, replica: str) -> tuple[Execution, Sequence[Event]] | None:
    """Claims a queued execution for `replica`: its state and all its events, or None when it is not queued any more."""
    events = list(await log.read(execution_id))
    if not events or fold(execution_id, events).phase is not Phase.QUEUED:
        return None
    claimed = Claimed(at=now(), nonce=nonce(), replica=replica)
    try:
        await log.append(execution_id, len(events), [claimed])
    except Conflict:
        return None
    events.append(claimed)
    return fold(execution_id, events), events
