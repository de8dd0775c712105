"""Runs claimed executions: copy in, start, watch, classify, write the end, clean up."""

import logging
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import anyio
from anyio.abc import TaskGroup, TaskStatus
from attrs import evolve, frozen

from pyexec.domain.events import Adopted, Claimed, Event, FailureType, Running, Submitted
from pyexec.domain.execution import Execution, fold
from pyexec.domain.outcome import Ended
from pyexec.errors import (
    Conflict,
    ExecutorError,
    SessionLost,
    Unavailable,
)
from pyexec.metrics import STEP_SECONDS, UNMEASURED, Meter, timed
from pyexec.ports import BlobStore, EventLog, IdempotencyKey
from pyexec.sandbox.sandbox import Sandbox
from pyexec.services.active_runs import ActiveRuns, Run
from pyexec.services.clock import nonce, now
from pyexec.services.completion import UNPREPARED, CompletionWriter
from pyexec.services.corrupt_logs import CorruptLogReporter
from pyexec.services.in_doubt import InDoubtResolver
from pyexec.services.preparation import Preparation
from pyexec.services.run_monitor import Bounds, Follow, follow, plan_of, start_and_follow, watch
from pyexec.services.shutdown_guard import InFlightGuard
from pyexec.services.slots import Slot, Slots
from pyexec.services.spool import Spool

logger = logging.getLogger(__name__)

CALM_SECONDS = 0.05
"""Removing a container takes the engine's processor for longer than most programs run: who was just answered may ask
again at once, and others have perhaps just begun."""
UNHEARD = "the event log did not answer when it was to begin; its code was not started"

Prepare = Callable[[], Coroutine[Any, Any, Sandbox]]
"""Comes to the filled sandbox of a run, whatever that takes."""


@frozen(kw_only=True)
class RunnerConfig:
    """Who this replica is, and what bounds what comes out of a run.

    `leave_running` says whether programs outlive an orderly stop, for another replica to adopt."""

    replica: str
    engine: str
    bounds: Bounds
    leave_running: bool


class Runner:
    """Carries executions from their claim to their end; `serve` must run around it."""

    def __init__(
        self,
        config: RunnerConfig,
        *,
        log: EventLog,
        blobs: BlobStore,
        preparation: Preparation,
        slots: Slots,
        active_runs: ActiveRuns,
        corrupt_logs: CorruptLogReporter,
        meter: Meter = UNMEASURED,
    ) -> None:
        self.config = config
        self._meter = meter
        self._corrupt_logs = corrupt_logs
        self._log = log
        self._blobs = blobs
        self._preparation = preparation
        self._slots = slots
        self._active_runs = active_runs
        self._completion = CompletionWriter(
            log=log,
            blobs=blobs,
            replica=config.replica,
            output_bytes_max=config.bounds.output_bytes,
            corrupt_logs=corrupt_logs,
        )
        self._in_doubt = InDoubtResolver(
            log=log, active_runs=active_runs, replica=config.replica, corrupt_logs=corrupt_logs
        )
        self._tasks: TaskGroup | None = None
        self._guard = InFlightGuard()

    async def serve(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Holds the runs. On cancellation, what has not started is given back, and what still runs is left to be
        adopted or ends as `lost`."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            task_status.started()
            await anyio.sleep_forever()

    @property
    def closed(self) -> bool:
        """Whether this server stops, so that nothing begins here any more."""
        return self._guard.closed

    async def drain(self, seconds: float) -> None:
        """Takes no new work; returns when all runs are over, or after so many seconds. Nothing begins after that, and
        no end waits for a log that is away, where another replica can find it again."""
        self._slots.close()
        try:
            with anyio.move_on_after(seconds):
                for run in self._active_runs.all():
                    await run.over.wait()
        finally:
            self._guard.close()
            if self.config.leave_running:
                self._completion.leave()
        await self._guard.drained()

    async def start(
        self,
        run: Run,
        sandbox: Sandbox,
        slot: Slot,
        events: Sequence[Event],
        key: IdempotencyKey | None = None,
    ) -> None:
        """Writes `events` and `Running` in one step, then carries the run out in the background.

        The archive must be unpacked in `sandbox`. On return the runner owns sandbox and slot; when it raises
        (`Conflict`, `KeyTaken`, `Unavailable`, `SandboxBroken`) the caller still does, and nothing has started."""
        running = Running(
            at=now(),
            nonce=nonce(),
            engine=self.config.engine,
            container=sandbox.container_id,
            image=sandbox.image,
        )
        spec = fold(run.id, [*run.events, *events]).spec
        await sandbox.send_plan(plan_of(spec), spec.stdin.encode())
        with self._guard.section(), anyio.CancelScope(shield=True):
            await self._write_first(run, [*events, running], key)
            begin = partial(start_and_follow, run, sandbox, self.config.bounds)
            self._carry_out_later(run, sandbox, slot, begin)

    async def open(
        self, run: Run, submitted: Submitted, key: IdempotencyKey | None, slot: Slot | None
    ) -> None:
        """Writes `submitted`, whose archive lies in the blob store; with a slot it is claimed in the same step, and
        the runner owns the slot on return. Raises as `start` does."""
        with self._guard.section(), anyio.CancelScope(shield=True):
            if slot is None:
                await self._append(run, [submitted], key)
                return
            await self._write_first(run, [submitted, self.claim()], key)
            self.start_claimed(run, slot)

    async def open_pinned(
        self, run: Run, submitted: Submitted, key: IdempotencyKey | None, sandbox: Sandbox, slot: Slot
    ) -> None:
        """Writes `submitted`, pinned to this replica, whose archive is unpacked in `sandbox`; starts it in the
        background once the reconciler has claimed it. Otherwise as `start`."""
        pinned = evolve(submitted, pinned=self.config.replica)
        with self._guard.section(), anyio.CancelScope(shield=True):
            await self._write_first(run, [pinned], key)
            self._run_later(run, slot, partial(self._preparation.once_claimed, run, sandbox))

    async def open_spooled(
        self,
        run: Run,
        submitted: Submitted,
        key: IdempotencyKey | None,
        spool: Spool,
        slot: Slot,
        *,
        claim: bool,
    ) -> None:
        """Writes `submitted`, pinned to this replica, whose archive lies in `spool` until what it needs is ready, and
        with `claim` the claim in the same step. The runner owns the spool, too, on return. Otherwise as `start`."""
        pinned = evolve(submitted, pinned=self.config.replica)
        with self._guard.section(), anyio.CancelScope(shield=True):
            await self._write_first(run, [pinned, self.claim()] if claim else [pinned], key)
            self._run_later(run, slot, partial(self._preparation.from_spool, run, spool))

    def start_claimed(self, run: Run, slot: Slot) -> None:
        """Takes over a run that is claimed for this replica; its archive lies in the blob store."""
        self._active_runs.add(run)
        self._run_later(run, slot, partial(self._preparation.from_payload, run))

    def claim(self) -> Claimed:
        """A claim of this replica's."""
        return Claimed(at=now(), nonce=nonce(), replica=self.config.replica)

    def is_orphaned(self, execution: Execution) -> bool:
        """Whether it is this replica's by the log, and yet nobody here carries it on."""
        return execution.is_for(self.config.replica) and execution.id not in self._active_runs

    def resolve_later(self, execution_id: str, reason: str, submitted: Submitted | None = None) -> None:
        """Leaves an execution that nobody here carries on to be settled in the background, as soon as the log
        answers. When this server stops before, the leader does it."""
        if not self.closed:
            settle = partial(self._in_doubt.settle, execution_id, reason, submitted)
            self._spawn(settle, name=f"settle {execution_id}")

    async def _write_first(
        self, run: Run, events: Sequence[Event], key: IdempotencyKey | None = None
    ) -> None:
        """Writes events of a run that is known as this replica's even before: others read the log meanwhile."""
        after = [*run.events, *events]
        known = run.id in self._active_runs
        self._active_runs.add(run)
        try:
            await self._append(run, events, key)
        except BaseException:
            if not known:
                self._active_runs.remove(run)
                run.detach()
            raise
        run.catch_up(after)

    async def _append(self, run: Run, events: Sequence[Event], key: IdempotencyKey | None) -> None:
        run.check_open(self.config.replica, events[0])  # it may have been taken over while it was prepared
        try:
            await self._log.append(run.id, run.seq, events, key=key)
        except SessionLost:
            raise  # nothing was written
        except Unavailable:
            self.resolve_later(run.id, UNHEARD, events[0] if isinstance(events[0], Submitted) else None)
            raise

    async def adopt(
        self, execution: Execution, events: Sequence[Event], sandbox: Sandbox, slot: Slot
    ) -> None:
        """Follows a program that a vanished replica has started on this engine, as if it had been ours.

        On return the runner owns sandbox and slot; raises `Conflict` when the execution has moved on."""
        adopted = Adopted(at=now(), nonce=nonce(), replica=self.config.replica)
        run = Run(execution.id)
        run.record(events)
        with self._guard.section(), anyio.CancelScope(shield=True):
            if execution.owner != self.config.replica:  # else it was adopted, and the log did not say so
                await self._log.append(execution.id, execution.seq, [adopted], fence=execution.owner)
                run.record([adopted])
            go_on = partial(follow, run, sandbox, self.config.bounds)
            self._carry_out_later(run, sandbox, slot, go_on)

    async def refresh(self) -> None:
        """After others may have taken this replica for dead: lets go of the runs that they have taken over."""
        await self._in_doubt.refresh()

    def _spawn(self, task: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        if self._tasks is None:
            raise RuntimeError("the runner is not serving")
        self._tasks.start_soon(task, name=name)

    def _run_later(self, run: Run, slot: Slot, prepare: Prepare) -> None:
        self._spawn(partial(self._run_claimed, run, slot, prepare), name=f"prepare {run.id}")

    async def _run_claimed(self, run: Run, slot: Slot, prepare: Prepare) -> None:
        """From the claim to the go-ahead; what fails on the way is the execution's end."""
        sandbox: Sandbox | None = None
        handed_over = False
        try:
            with run.preparation:
                sandbox = await prepare()
                await self.start(run, sandbox, slot, ())
                handed_over = True
            if not handed_over:
                await self._completion.end(run, Ended(reason="killed"))
        except (Conflict, Unavailable) as error:  # of the log or the blobs: it may start later, or elsewhere
            run.detach()
            self.resolve_later(run.id, f"it could not start there: {error}")
        except UNPREPARED as error:
            await self._completion.fail_unprepared(run, error)
        except Exception:  # a fault of ours in one run is that run's end, and no other's
            logger.exception("%s could not be started", run.id)
            await self._completion.fail(
                run, FailureType.INTERNAL, "the server failed to start it; its log says why"
            )
        except anyio.get_cancelled_exc_class():
            await self._completion.release(run, "its replica stops")
            raise
        finally:
            if not handed_over:
                with anyio.CancelScope(shield=True):
                    await self._clean_up(run, sandbox, slot, begun=False)

    def _carry_out_later(self, run: Run, sandbox: Sandbox, slot: Slot, following: Follow) -> None:
        self._active_runs.add(run)
        self._spawn(partial(self._carry_out, run, sandbox, slot, following), name=f"run {run.id}")

    async def _carry_out(self, run: Run, sandbox: Sandbox, slot: Slot, following: Follow) -> None:
        """From the go-ahead to the end."""
        try:
            with timed(self._meter, STEP_SECONDS, "program"):
                ended = await watch(run, sandbox, following, self.config.bounds)
            await self._completion.end(run, ended)
        except Exception:
            logger.exception("%s could not be carried to its end", run.id)
            await self._completion.end(
                run, Ended(reason="broken", detail="the server failed; its log says why")
            )
        except anyio.get_cancelled_exc_class():
            if self.config.leave_running:
                run.detach()
            else:
                await self._completion.end(run, Ended(reason="stopped"))
            raise
        finally:
            with anyio.CancelScope(shield=True):
                await self._clean_up(run, sandbox, slot)

    async def _clean_up(self, run: Run, sandbox: Sandbox | None, slot: Slot, *, begun: bool = True) -> None:
        """Only after the end is durable, and a moment later, unless somebody waits for the slot.

        A sandbox that another replica follows, or will, is let go unharmed."""
        self._active_runs.remove(run)
        try:
            await self._slots.until_wanted(CALM_SECONDS)
            if sandbox is not None and (run.has_ended or not begun):
                await sandbox.remove()
            elif sandbox is not None:
                await sandbox.detach()
        except ExecutorError as error:
            logger.error("the sandbox of %s is left behind: %s", run.id, error)
        finally:
            self._slots.release(slot)
            self._preparation.pool.refresh()
            if run.output_files is not None:
                await run.output_files.close()
