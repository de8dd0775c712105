"""An interpreter session that this replica owns: runs its cells one after another, and ends it."""

import logging
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import anyio
from anyio.abc import TaskGroup, TaskStatus
from attrs import define, field, frozen

from pyexec.aio import Broadcast, FailureLog, retry
from pyexec.correlation import correlated
from pyexec.domain.session import Session, apply_session, is_legal
from pyexec.domain.session_events import CloseReason, InterpreterRestarted, SessionClosed, SessionEvent
from pyexec.errors import Conflict, EngineError, ExecutorError, SandboxBroken, SessionEnded, Unavailable
from pyexec.ports import SessionLog
from pyexec.sandbox.session_sandbox import SessionSandbox
from pyexec.services.active_runs import Run
from pyexec.services.clock import nonce, now
from pyexec.services.sessions.cells import CellRunner

logger = logging.getLogger(__name__)

LEASE_INTERVAL_SECONDS = 10.0
"""A twelfth of the time after which a sandbox without a lease ends itself."""
CELLS_MAX = 100
"""How many cells of a session may wait."""


@frozen(kw_only=True)
class SessionServices:
    """What a session needs from its replica. `release` is called once, when the session is no longer here."""

    replica: str
    log: SessionLog
    cells: CellRunner
    release: Callable[[], None]


@define(eq=False)
class OwnedSession:
    """A session on the replica that owns it. `serve` must be running while it is used."""

    state: Session
    sandbox: SessionSandbox
    services: SessionServices
    files: anyio.Lock = field(factory=anyio.Lock)
    """Transfers of one session are made one after another."""
    _turn: anyio.Semaphore = field(factory=lambda: anyio.Semaphore(1))
    """Held by the cell that runs. Cells that wait get it in the order of their acceptance."""
    _accepting: anyio.Lock = field(factory=anyio.Lock)
    _appending: anyio.Lock = field(factory=anyio.Lock)
    _cells: dict[str, Run] = field(factory=dict)
    """The cells that have not ended, in the order of their acceptance."""
    _changed: Broadcast = field(factory=Broadcast)
    _left: anyio.Event = field(factory=anyio.Event)
    """Set once the session is closed, or belongs to another replica."""
    _used_at: float = field(factory=anyio.current_time)
    _tasks: TaskGroup | None = None
    _draining: bool = False

    @property
    def id(self) -> str:
        return self.state.id

    @property
    def running(self) -> Run | None:
        """The cell whose turn it is."""
        first = next(iter(self._cells.values()), None)
        return first if first is not None and first.execution.started_at is not None else None

    @property
    def waiting_count(self) -> int:
        """The number of cells that wait."""
        return len(self._cells) - (self.running is not None)

    @property
    def idle_since(self) -> datetime | None:
        """The end of the last cell; None if cells run or wait."""
        return None if self._cells else now() - timedelta(seconds=anyio.current_time() - self._used_at)

    async def serve(
        self, cells: Sequence[Run] = (), *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Run the session until it is closed, or belongs to another replica. If cancelled, leave it to adoption.

        `cells` are those that an earlier owner has accepted and not ended, in the order of their acceptance."""
        try:
            async with anyio.create_task_group() as self._tasks:
                for run in cells:
                    self._resume(run)
                self._spawn(self.sandbox.serve, "connection")
                self._spawn(self._renew_lease, "lease")
                self._spawn(self._record_restarts, "restarts")
                self._spawn(self._close_with_sandbox, "end")
                self._spawn(self._close_at_deadline, "deadline")
                task_status.started()
                await self._left.wait()
                self._tasks.cancel_scope.cancel()
        finally:
            self._tasks = None
            with anyio.CancelScope(shield=True):
                await self._clean_up()

    async def accept(self, new_cell: Callable[[bool], Coroutine[Any, Any, Run]]) -> Run:
        """Accept a cell. `new_cell` appends its first events, with the start if the argument is True.

        Raises `SessionEnded`, `QueueFull`, or what `new_cell` raises."""
        async with self._accepting:
            self.check_open()
            self.services.cells.check_queue(self.waiting_count, CELLS_MAX)
            starts = self._take_turn()
            try:
                with anyio.CancelScope(shield=True):
                    run = await new_cell(starts)
            except BaseException:
                if starts:
                    self._turn.release()
                raise
            self._follow(run, starts)
        return run

    async def interrupt(self) -> bool:
        """Interrupt the running cell with `KeyboardInterrupt`. Return False if none runs."""
        self.check_open()
        self._touch()
        with self._reachable():
            return self.running is not None and await self.sandbox.interrupt()

    async def restart(self) -> None:
        """Replace the interpreter. The running cell ends; those that wait run in the new one."""
        self.check_open()
        self._touch()
        with self._reachable():
            await self.sandbox.restart()

    async def close(self, reason: CloseReason) -> None:
        """Close the session and end its cells. Raises `Unavailable` if the log does not answer."""
        if self.state.is_open and not self._left.is_set():
            await self._append(SessionClosed(at=now(), nonce=nonce(), reason=reason))
        self._left.set()

    async def drain(self, seconds: float) -> None:
        """Accept no more cells, and wait until the running one has ended, at most `seconds`."""
        self._draining = True
        with anyio.move_on_after(seconds):
            while self.running is not None:
                await self._changed.wait()

    def catch_up(self, events: Sequence[SessionEvent]) -> None:
        """Apply the events that are not known yet. If another replica owns the session, leave it."""
        for event in events[self.state.seq :]:
            self.state = apply_session(self.id, self.state, event)
        if self.state.owner != self.services.replica:
            logger.warning("session %s is owned by %s now", self.id, self.state.owner)
        if self.state.owner != self.services.replica or not self.state.is_open:
            self._left.set()

    def check_open(self) -> None:
        """Raise `SessionEnded` if the session is closed, and `Unavailable` if another replica is about to adopt it."""
        if not self.state.is_open:
            raise SessionEnded(f"session {self.id} is closed ({self.state.close_reason}); open a new one")
        if self._left.is_set() or self._draining or self._tasks is None:
            raise Unavailable("the session is moving to another replica; send the request again")

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        """Raise `Unavailable` if the sandbox does not answer."""
        try:
            yield
        except (EngineError, SandboxBroken) as error:
            raise Unavailable(f"the sandbox of the session does not answer: {error}") from error

    def _resume(self, run: Run) -> None:
        is_turn = run.execution.started_at is not None
        if is_turn:
            self._turn.acquire_nowait()
        self._follow(run, is_turn, is_adopted=True)

    def _take_turn(self) -> bool:
        try:
            self._turn.acquire_nowait()
        except anyio.WouldBlock:
            return False
        return True

    def _follow(self, run: Run, is_turn: bool, *, is_adopted: bool = False) -> None:
        self._cells[run.id] = run
        self._spawn(partial(self._run_cell, run, is_turn, is_adopted), f"cell {run.id} of")

    async def _run_cell(self, run: Run, is_turn: bool, is_adopted: bool) -> None:
        """Wait for the turn of the cell, run it, and end it."""
        try:
            with correlated(run.id, "session", self.state.spec.tenant):
                started_before = is_turn and is_adopted
                if not is_turn:
                    with run.preparation:
                        await self._turn.acquire()
                        is_turn = True
                reason = await self.services.cells.run(run, self.sandbox, is_turn, started_before)
                if reason is not None:
                    await self._record_restart(reason)
        except anyio.get_cancelled_exc_class():
            if self.state.is_open:
                run.detach()
            else:
                await self.services.cells.end_with_session(run, self.state)
            raise
        finally:
            del self._cells[run.id]
            self.services.cells.forget(run)
            if is_turn:
                self._turn.release()
            self._touch()

    def _touch(self) -> None:
        self._used_at = anyio.current_time()
        self._changed.notify_all()

    async def _renew_lease(self) -> None:
        while True:
            await self.sandbox.lease()
            await anyio.sleep(LEASE_INTERVAL_SECONDS)

    async def _record_restarts(self) -> None:
        """Record the restarts that no cell reports, such as those between two cells."""
        async for reason in self.sandbox.restarts:
            await self._record_restart(reason)

    async def _record_restart(self, reason: str) -> None:
        failures = FailureLog(logger, f"recording a restart of {self.id}")
        await retry(
            lambda: self._append(InterpreterRestarted(at=now(), nonce=nonce(), reason=reason)), failures
        )

    async def _close_with_sandbox(self) -> None:
        """Close the session when its sandbox has ended, unless another replica has adopted it."""
        await self.sandbox.ended.wait()
        failures = FailureLog(logger, f"reading {self.id}")
        self.catch_up(await retry(partial(self.services.log.read, self.id), failures))
        out_of_memory = await self.sandbox.ran_out_of_memory()
        await self._close_with_retries(CloseReason.MEMORY if out_of_memory else CloseReason.LOST)

    async def _close_at_deadline(self) -> None:
        """Close the session at the end of its lifetime, or after it was idle for too long."""
        spec = self.state.spec
        age = (now() - self.state.created_at).total_seconds()
        end_of_life = anyio.current_time() + spec.lifetime_seconds - age
        while True:
            changed = self._changed.next_event()
            idle_until = float("inf") if self._cells else self._used_at + spec.idle_timeout_seconds
            deadline = min(end_of_life, idle_until)
            with anyio.move_on_after(deadline - anyio.current_time()):
                await changed.wait()
                continue
            await self._close_with_retries(
                CloseReason.LIFETIME if deadline == end_of_life else CloseReason.IDLE
            )

    async def _close_with_retries(self, reason: CloseReason) -> None:
        await retry(partial(self.close, reason), FailureLog(logger, f"closing {self.id}"))

    async def _append(self, event: SessionEvent) -> None:
        """Append an event. After a conflict, apply what is in the log, and decide again. Do nothing if it is not legal
        any more."""
        async with self._appending:
            while self.state.owner == self.services.replica and is_legal(self.state, event):
                try:
                    with anyio.CancelScope(shield=True):
                        await self.services.log.append(self.id, self.state.seq, [event])
                        self.state = apply_session(self.id, self.state, event)
                        return
                except Conflict:
                    self.catch_up(await self.services.log.read(self.id))

    def _spawn(self, task: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        if self._tasks is None:
            raise Unavailable("the session is moving to another replica; send the request again")
        self._tasks.start_soon(task, name=f"{name} session {self.id}")

    async def _clean_up(self) -> None:
        self.services.release()
        try:
            if self.state.is_open:
                await self.sandbox.detach()
            else:
                await self.sandbox.remove()
        except (EngineError, ExecutorError) as error:
            logger.error("the sandbox of %s could not be removed: %s", self.id, error)
