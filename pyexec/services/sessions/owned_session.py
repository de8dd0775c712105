"""An interpreter session that this replica owns: runs its cells one after another, and ends it."""

import logging
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import anyio
from anyio.abc import TaskGroup, TaskStatus
from attrs import Factory, define, field

from pyexec.aio import Broadcast, FailureLog, retry
from pyexec.correlation import correlated
from pyexec.domain.session import Session
from pyexec.domain.session_events import CloseReason, InterpreterRestarted, SessionClosed, SessionEvent
from pyexec.errors import EngineError, ExecutorError, SandboxBroken, SessionMoving, Unavailable
from pyexec.sandbox.session_sandbox import SessionSandbox
from pyexec.services.active_runs import Run
from pyexec.services.clock import new_execution_id, nonce, now
from pyexec.services.sessions.cells import CellRunner, check_queue
from pyexec.services.sessions.directory import require_open
from pyexec.services.sessions.owned_log import OwnedLog
from pyexec.services.sessions.use import SessionUse

logger = logging.getLogger(__name__)

LEASE_INTERVAL_SECONDS = 10.0
"""Seconds between two renewals of the sandbox's lease: a twelfth of the time after which the lease expires."""
RESTART_SECONDS = 30.0
"""How long a request for a new interpreter waits. The supervisor kills an interpreter that does not start in 20 s."""
RESTARTS_MAX = 1000
"""How many restarts of an interpreter the log of its session keeps: every replica reads the whole log."""


@define(eq=False)
class OwnedSession:
    """A session on the replica that owns it. `serve` must be running while it is used.

    `release` is called once, when the session is no longer here."""

    log: OwnedLog
    sandbox: SessionSandbox
    cell_runner: CellRunner
    release: Callable[[], None]
    _turn: anyio.Semaphore = field(factory=lambda: anyio.Semaphore(1))
    """Held by the cell that runs. Cells that wait get it in the order of their acceptance."""
    _accepting: anyio.Lock = field(factory=anyio.Lock)
    _cells: dict[str, Run] = field(factory=dict)
    """The cells that have not ended, in the order of their acceptance."""
    _last_id: str | None = None
    """The id of the cell that was accepted last."""
    _changed: Broadcast = field(factory=Broadcast)
    unfinished: list[str] = field(factory=list)
    """The cells that have left this replica without an end."""
    use: SessionUse = field(default=Factory(lambda self: SessionUse(self._changed), takes_self=True))
    _tasks: TaskGroup | None = None
    _draining: bool = False
    _restarts: int = 0
    """The restarts of the interpreter since this replica owns the session."""

    @property
    def id(self) -> str:
        return self.state.id

    @property
    def state(self) -> Session:
        return self.log.state

    @property
    def running(self) -> Run | None:
        """The cell whose turn it is."""
        first = next(iter(self._cells.values()), None)
        return first if first is not None and first.execution.started_at is not None else None

    @property
    def waiting_count(self) -> int:
        """The number of cells that wait."""
        return len(self._cells) - (self.running is not None)

    async def serve(
        self, cells: Sequence[Run] = (), *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Run the session until it is closed, or belongs to another replica. If cancelled, leave it to adoption.

        `cells` are those that an earlier owner has accepted and not ended, in the order of their acceptance."""
        self._last_id = max((run.id for run in cells), default=None)
        try:
            async with anyio.create_task_group() as self._tasks:
                for run in cells:
                    self._follow(run, self._take_turn(), is_adopted=True)
                self.sandbox.on_restart = self._spawn_record
                self._spawn(self.sandbox.serve, "connection")
                self._spawn(self._renew_lease, "lease")
                self._spawn(self._close_with_sandbox, "end")
                self._spawn(self._close_at_deadline, "deadline")
                task_status.started()
                await self.log.left.wait()
                async with self._accepting:  # the cell that is being accepted ends with the session, too
                    self._tasks.cancel_scope.cancel()
        finally:
            self._tasks = None
            await self._clean_up()

    async def accept(self, new_cell: Callable[[str, bool], Coroutine[Any, Any, Run]]) -> Run:
        """Accept a cell. `new_cell` gets its id, and appends its first events, with the start if the second argument is
        True. The ids of a session's cells sort in the order of acceptance, whatever the clocks of its owners say.

        Raises `SessionEnded`, `QueueFull`, or what `new_cell` raises."""
        async with self._accepting:
            self.check_open()
            check_queue(self.waiting_count)
            starts = self._take_turn()
            self._last_id = new_execution_id(after=self._last_id)
            try:
                with anyio.CancelScope(shield=True):
                    run = await new_cell(self._last_id, starts)
            except BaseException:
                if starts:
                    self._turn.release()
                raise
            self._follow(run, starts)
        return run

    async def interrupt(self) -> bool:
        """Interrupt the running cell with `KeyboardInterrupt`. Return False if none runs."""
        self.check_open()
        with self.use.during(), self._reachable():
            return self.running is not None and await self.sandbox.interrupt()

    async def restart(self) -> None:
        """Replace the interpreter, and wait until that is recorded. The running cell ends; those that wait run in the
        new one."""
        self.check_open()
        before = self._restarts
        with anyio.move_on_after(RESTART_SECONDS):
            with self.use.during(), self._reachable():
                await self.sandbox.restart()
            while self._restarts == before:
                self.check_open()
                await self._changed.wait()
            return
        raise Unavailable("the sandbox of the session did not restart the interpreter in time")

    async def close(self, reason: CloseReason) -> None:
        """Close the session and end its cells.

        If the log does not answer, raise `Unavailable`, and close the session as soon as it does."""
        closed = SessionClosed(at=now(), nonce=nonce(), reason=reason)
        try:
            await self.log.append(closed)
        except Unavailable:
            if self._tasks is not None:
                self._spawn(partial(self._append, closed), "close")
            raise

    async def close_with_retries(self, reason: CloseReason) -> None:
        """Close the session and end its cells. Retry while the log does not answer."""
        await self._append(SessionClosed(at=now(), nonce=nonce(), reason=reason))

    async def discard(self, reason: CloseReason) -> None:
        """Close a session that is not served, and remove its sandbox."""
        try:
            await self.close(reason)
        finally:
            await self._clean_up()

    async def drain(self, seconds: float) -> None:
        """Accept no more cells, and wait until the running one has ended, at most `seconds`."""
        self._draining = True
        with anyio.move_on_after(seconds):
            while self.running is not None:
                await self._changed.wait()

    def catch_up(self, events: Sequence[SessionEvent]) -> None:
        """Apply the events that are not known yet. If another replica owns the session, leave it."""
        self.log.catch_up(events)
        if self.state.owner != self.log.replica:
            logger.warning("session %s is owned by %s now", self.id, self.state.owner)

    def check_open(self) -> None:
        """Raise `SessionEnded` if the session is closed, and `Unavailable` if another replica is about to adopt it."""
        require_open(self.state)
        is_leaving = self.log.left.is_set() or self.sandbox.ended.is_set()
        if is_leaving or self._draining or self._tasks is None:
            raise SessionMoving

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        """Raise `Unavailable` if the sandbox does not answer."""
        try:
            yield
        except (EngineError, SandboxBroken) as error:
            raise Unavailable(f"the sandbox of the session does not answer: {error}") from error

    def _take_turn(self) -> bool:
        try:
            self._turn.acquire_nowait()
        except anyio.WouldBlock:
            return False
        return True

    def _follow(self, run: Run, is_turn: bool, *, is_adopted: bool = False) -> None:
        if self._tasks is None:
            run.detach()
            self.cell_runner.forget(run)
        self._spawn(partial(self._run_cell, run, is_turn, is_adopted), f"cell {run.id} of")
        self._cells[run.id] = run

    async def _run_cell(self, run: Run, is_turn: bool, is_adopted: bool) -> None:
        """Wait for the turn of the cell, run it, and end it."""
        started_before = is_adopted and run.execution.started_at is not None
        try:
            with self.use.during(), correlated(run.id, "session", self.state.spec.tenant):
                if started_before:
                    await self._connected()
                with run.preparation:
                    if not is_turn:
                        await self._turn.acquire()
                        is_turn = True
                    await self._connected()
                    if run.execution.started_at is None and (self._draining or self.sandbox.ended.is_set()):
                        await anyio.sleep_forever()  # the next owner starts it, or it ends with the session
                reason = await self.cell_runner.run(run, self.sandbox, is_turn, started_before)
                if reason is not None:
                    await self._record_restart(reason)
        except anyio.get_cancelled_exc_class():
            if self.state.is_open:
                run.detach()
            else:
                await self.cell_runner.end_with_session(run, self.state)
            raise
        finally:
            del self._cells[run.id]
            self.cell_runner.forget(run)
            if not run.has_ended:
                self.unfinished.append(run.id)
            if is_turn:
                self._turn.release()
            self._changed.notify_all()

    async def _connected(self) -> None:
        """Wait until the sandbox is connected. If it ends before, its cells end with the session."""
        await self.sandbox.ready.wait()
        if self.sandbox.synced is None:
            await anyio.sleep_forever()

    async def _renew_lease(self) -> None:
        while True:
            await self.sandbox.lease()
            await anyio.sleep(LEASE_INTERVAL_SECONDS)

    def _spawn_record(self, reason: str) -> None:
        """Record a restart that no cell reports, such as one between two cells."""
        self._spawn(partial(self._record_restart, reason), "restart of")

    async def _record_restart(self, reason: str) -> None:
        if self.state.restarts < RESTARTS_MAX:
            await self._append(InterpreterRestarted(at=now(), nonce=nonce(), reason=reason))
        self._restarts += 1
        self._changed.notify_all()

    async def _close_with_sandbox(self) -> None:
        """Close the session when its sandbox has ended, unless another replica has adopted it."""
        await self.sandbox.ended.wait()
        failures = FailureLog(logger, f"reading {self.id}")
        self.catch_up(await retry(partial(self.log.log.read, self.id), failures))
        out_of_memory = await self.sandbox.ran_out_of_memory()
        await self.close_with_retries(CloseReason.MEMORY if out_of_memory else CloseReason.LOST)

    async def _close_at_deadline(self) -> None:
        await self.close_with_retries(await self.use.wait_for_deadline(self.state))

    async def _append(self, event: SessionEvent) -> None:
        failures = FailureLog(logger, f"appending to {self.id}")
        await retry(partial(self.log.append, event), failures)
        self._changed.notify_all()

    def _spawn(self, task: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        if self._tasks is None:
            raise SessionMoving
        self._tasks.start_soon(self._contain_errors, task, name=f"{name} session {self.id}")

    async def _contain_errors(self, task: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a task. An internal error in it closes this session, and does not end the others."""
        try:
            await task()
        except Exception:
            logger.exception("session %s failed and is closed", self.id)
            await self.close_with_retries(CloseReason.LOST)

    async def _clean_up(self) -> None:
        self._changed.notify_all()
        self.release()
        try:
            with anyio.CancelScope(shield=True):
                await (self.sandbox.detach() if self.state.is_open else self.sandbox.remove())
        except (EngineError, ExecutorError) as error:
            logger.error("the sandbox of %s could not be removed: %s", self.id, error)
