"""Run executions on this replica, from their first event to their last: prepare, start, monitor, complete, clean up."""

import logging
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import anyio
from anyio.abc import TaskGroup, TaskStatus
from attrs import frozen

from pyexec.aio import ShutdownGuard
from pyexec.domain.events import Adopted, Claimed, Event, FailureType, Running, Submitted
from pyexec.domain.execution import Execution, fold
from pyexec.domain.outcome import RunOutcome
from pyexec.errors import Conflict, ExecutorError, NotWritten, Unavailable
from pyexec.metrics import NOOP_METER, STEP_SECONDS, Meter, timed
from pyexec.ports import EventLog, IdempotencyKey
from pyexec.sandbox.pool.pool import Pool
from pyexec.sandbox.sandbox import Sandbox
from pyexec.services.active_runs import ActiveRuns, Run
from pyexec.services.clock import nonce, now
from pyexec.services.completion import PREPARATION_ERRORS, CompletionWriter
from pyexec.services.in_doubt import InDoubtResolver
from pyexec.services.preparation import Placement, PlaceRun
from pyexec.services.run_monitor import (
    FollowProgram,
    OutputLimits,
    follow,
    monitor,
    program_plan,
    start_and_follow,
)
from pyexec.services.shutdown import release_or_end
from pyexec.services.slots import Slot, Slots

logger = logging.getLogger(__name__)

REMOVAL_DELAY_SECONDS = 0.05
"""Removing a container occupies the engine's processor for longer than most programs run. The delay leaves the
processor to the next request of the caller who was just answered."""
NOT_CONFIRMED = "the event log did not confirm the start; the code was not started"


@frozen(kw_only=True)
class RunnerConfig:
    """The ids of the replica and of its engine, and the limits on output.

    `leave_running` is True if programs keep running after a graceful shutdown, so that another replica adopts them."""

    replica: str
    engine: str
    limits: OutputLimits
    leave_running: bool


class Runner:
    """Handles the runs of one replica. `serve` must be running while it is used.

    - `start` appends events up to `running`, and starts the program in a prepared sandbox.
    - `accept` appends the first events of an execution that starts later. If it gets a `PlaceRun`, it calls `launch`.
    - `launch` prepares and starts a claimed run, in the background.
    - `adopt` follows a program that another replica started."""

    def __init__(
        self,
        config: RunnerConfig,
        *,
        log: EventLog,
        pool: Pool,
        slots: Slots,
        active_runs: ActiveRuns,
        completion: CompletionWriter,
        in_doubt: InDoubtResolver,
        meter: Meter = NOOP_METER,
    ) -> None:
        self.config = config
        self._log = log
        self._pool = pool
        self._slots = slots
        self._active_runs = active_runs
        self._completion = completion
        self._in_doubt = in_doubt
        self._meter = meter
        self._guard = ShutdownGuard()
        self._tasks: TaskGroup | None = None

    @property
    def replica(self) -> str:
        """The id of this replica."""
        return self.config.replica

    @property
    def closed(self) -> bool:
        """True once this replica is shutting down and starts nothing more."""
        return self._guard.closed

    async def serve(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run the tasks of all runs until cancelled.

        Then runs that have not started are released. Running programs are left to adoption, or end as `lost`."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            task_status.started()
            await anyio.sleep_forever()

    async def drain(self, seconds: float) -> None:
        """Release runs that have not started, and wait until all others have ended, at most `seconds`.

        Meanwhile only accepted executions that can run nowhere else start. After that no run starts. If another replica
        can adopt the runs, completions no longer retry."""
        self._slots.close()
        self._active_runs.begin_drain()
        try:
            with anyio.move_on_after(seconds):
                await self._active_runs.until_ended()
        finally:
            self._guard.close()
            if self.config.leave_running:
                self._completion.stop_waiting()
        await self._guard.drained()

    def claim(self) -> Claimed:
        """Return a claim by this replica."""
        return Claimed(at=now(), nonce=nonce(), replica=self.replica)

    async def start(
        self,
        run: Run,
        placement: Placement,
        events: Sequence[Event] = (),
        key: IdempotencyKey | None = None,
    ) -> None:
        """Append `events` and `Running` in one step, then start the program and follow it in the background.

        On return the runner owns the placement. If it raises `Conflict`, `KeyTaken`, `Unavailable` or
        `SandboxBroken`, the caller still owns it and nothing was started."""
        sandbox = placement.sandbox
        running = Running(
            at=now(),
            nonce=nonce(),
            engine=self.config.engine,
            container=sandbox.container_id,
            image=sandbox.image,
        )
        spec = run.execution.spec if run.events else fold(run.id, events[:1]).spec
        await sandbox.send_plan(program_plan(spec, self.config.limits.display_bytes), spec.stdin.encode())
        with self._guard.section(), anyio.CancelScope(shield=True):
            self._active_runs.check_open(run)
            with self._active_runs.appending(run, [*events, running]):
                await self._append(run, [*events, running], key)
            reuse = self._pool.may_reuse(sandbox)
            follow_program = partial(start_and_follow, run, sandbox, self.config.limits, running.nonce, reuse)
            self._follow_in_background(run, placement, follow_program)

    async def accept(
        self, run: Run, events: Sequence[Event], key: IdempotencyKey | None, place_run: PlaceRun | None = None
    ) -> None:
        """Append the first events. Raises as `start` does.

        With `place_run`, the runner owns its slot and its sandbox on return, and starts the run in the background.
        Without it, the leader assigns the execution to a replica."""
        with self._guard.section(), anyio.CancelScope(shield=True):
            if place_run is None:
                await self._append(run, events, key)
            else:
                self._active_runs.check_open(run)
                with self._active_runs.appending(run, events):
                    await self._append(run, events, key)
                self.launch(run, place_run)

    def launch(self, run: Run, place_run: PlaceRun) -> None:
        """Prepare and start, in the background, a run whose first events are in the log."""
        self._active_runs.add(run)
        self._spawn(partial(self._prepare_and_start, run, place_run), name=f"prepare {run.id}")

    async def adopt(
        self, execution: Execution, events: Sequence[Event], sandbox: Sandbox, slot: Slot
    ) -> None:
        """Follow a program that another replica started on this engine and no longer owns.

        On return the runner owns sandbox and slot. Raises `Conflict` if the execution has changed meanwhile."""
        adopted = Adopted(at=now(), nonce=nonce(), replica=self.replica)
        run = Run(execution.id)
        run.record(events)
        with self._guard.section(), anyio.CancelScope(shield=True):
            if execution.owner != self.replica:  # else an earlier append has succeeded without a response
                await self._log.append(execution.id, execution.seq, [adopted], fence=execution.owner)
                run.record([adopted])
            self._follow_in_background(
                run, Placement(slot, sandbox), partial(follow, run, sandbox.frames(), self.config.limits)
            )

    def resolve_later(self, execution_id: str, reason: str, submitted: Submitted | None = None) -> None:
        """Resolve, in the background, an execution that this replica may own although no run of it exists here.

        If this replica shuts down first, the leader resolves it."""
        if not self.closed:
            resolve = partial(self._in_doubt.resolve, execution_id, reason, submitted)
            self._spawn(resolve, name=f"resolve {execution_id}")

    async def _append(self, run: Run, events: Sequence[Event], key: IdempotencyKey | None) -> None:
        run.check_may_append(self.replica, events[0])  # another replica may own it meanwhile
        try:
            await self._log.append(run.id, run.seq, events, key=key)
        except NotWritten:
            raise
        except Unavailable:
            submitted = events[0] if isinstance(events[0], Submitted) else None
            self.resolve_later(run.id, NOT_CONFIRMED, submitted)
            raise

    async def _prepare_and_start(self, run: Run, place_run: PlaceRun) -> None:
        """Prepare and start a claimed run. A failure ends the execution, or returns it to the queue."""
        placement: Placement | None = None
        started = False
        try:
            with run.preparation:
                placement = await place_run()
                await self.start(run, placement)
                started = True
            if not started and self._slots.closed:
                await release_or_end(run, self._completion)
            elif not started:
                await self._completion.end(run, RunOutcome(reason="killed"))
        except (Conflict, Unavailable) as error:  # from the log or the blob store: it may still start later
            run.detach()
            self.resolve_later(run.id, f"it could not start: {error}")
        except PREPARATION_ERRORS as error:
            await self._completion.fail_preparation(run, error)
        except Exception:  # an internal error in one run must not end the others
            logger.exception("%s could not be started", run.id)
            error_text = "internal server error before the start; see the server log"
            await self._completion.fail(run, FailureType.INTERNAL, error_text)
        except anyio.get_cancelled_exc_class():
            await release_or_end(run, self._completion)
            raise
        finally:
            if not started:
                with anyio.CancelScope(shield=True):
                    await self._clean_up(run, placement, started=False)

    def _follow_in_background(self, run: Run, placement: Placement, follow_program: FollowProgram) -> None:
        self._active_runs.add(run)
        self._spawn(partial(self._follow_to_end, run, placement, follow_program), name=f"run {run.id}")

    async def _follow_to_end(self, run: Run, placement: Placement, follow_program: FollowProgram) -> None:
        """Monitor a started run, append its terminal event, and clean up."""
        reusable = False
        try:
            with timed(self._meter, STEP_SECONDS, "program"):
                ended = await monitor(run, placement.sandbox, follow_program, self.config.limits)
            await self._completion.end(run, ended)
            reusable = ended.leaves_sandbox_usable and not run.kill_requested.is_set()
        except Exception:
            logger.exception("%s could not be followed to its end", run.id)
            detail = "internal server error; see the server log"
            await self._completion.end(run, RunOutcome(reason="broken", detail=detail))
        except anyio.get_cancelled_exc_class():
            if self.config.leave_running:
                run.detach()
            else:
                await self._completion.end(run, RunOutcome(reason="stopped"))
            raise
        finally:
            with anyio.CancelScope(shield=True):
                await self._clean_up(run, placement, reusable=reusable)

    async def _clean_up(
        self, run: Run, placement: Placement | None, *, started: bool = True, reusable: bool = False
    ) -> None:
        """Give the sandbox back to the pool and release the slot; remove a sandbox that is not `reusable`.

        A removal waits for a moment, unless another run waits for the slot. The sandbox of an execution that is open,
        or that another replica owns, is only detached: that replica follows it or will adopt it."""
        self._active_runs.remove(run)
        if placement is None:
            return
        try:
            is_own = run.has_ended and run.execution.owner == self.replica
            reusable = reusable and is_own and self._pool.may_reuse(placement.sandbox)
            if not reusable:
                await self._slots.wait_for_queue(REMOVAL_DELAY_SECONDS)
            if run.has_ended or not started:
                await self._pool.give_back(placement.sandbox, reusable=reusable)
            else:
                self._pool.forget(placement.sandbox)
                await placement.sandbox.detach()
        except ExecutorError as error:
            logger.error("the sandbox of %s could not be removed: %s", run.id, error)
        finally:
            self._slots.release(placement.slot)
            if run.output_files is not None:
                await run.output_files.close()

    def _spawn(self, task: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        if self._tasks is None:
            raise RuntimeError("the runner is not serving")
        self._tasks.start_soon(task, name=name)
