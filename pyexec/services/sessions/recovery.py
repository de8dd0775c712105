"""Adopt the interpreter sessions of vanished replicas on this engine, with their cells."""

import logging
from collections.abc import Sequence, Set

import anyio
from attrs import frozen

from pyexec.domain.events import Adopted, Claimed, Event, Failed, FailureType, Killed, Released
from pyexec.domain.execution import Execution, Phase, fold
from pyexec.domain.session import Session, fold_session
from pyexec.domain.session_events import SessionAdopted, SessionEvent
from pyexec.errors import Conflict, CorruptLog
from pyexec.ports import Engine, EventLog, SessionLog
from pyexec.sandbox.session_sandbox import SessionSandbox
from pyexec.services.active_runs import Run
from pyexec.services.clock import nonce, now
from pyexec.services.event_log import CorruptLogReporter
from pyexec.services.sessions.cells import NEVER_STARTED, CellRunner
from pyexec.services.sessions.directory import SessionDirectory
from pyexec.services.sessions.opening import Opening
from pyexec.services.sessions.sessions import Sessions
from pyexec.services.slots import Slots

logger = logging.getLogger(__name__)


@frozen(kw_only=True)
class SessionRecovery:
    """Adopts sessions for `replica`."""

    replica: str
    engine: Engine
    log: SessionLog
    executions: EventLog
    opening: Opening
    cells: CellRunner
    slots: Slots
    sessions: Sessions
    directory: SessionDirectory
    corrupt_logs: CorruptLogReporter

    async def adopt_orphans(self, alive: Set[str]) -> None:
        """Adopt the sessions of this engine whose owner is not `alive`, with their cells.

        The engine is not asked: the adopted session connects to its container, and retries until it succeeds."""
        here = {*self.sessions.owned_ids(), *self.opening.pending}
        for session in await self.directory.all_open():
            if session.engine != self.opening.engine or session.container is None:
                continue
            is_forgotten = session.owner == self.replica and session.id not in here
            if session.owner not in alive or is_forgotten:
                await self._adopt(session, session.container)
        await self._end_orphaned_cells(alive)

    async def containers_in_use(self) -> Set[str | None]:
        """Return the containers of all open sessions."""
        return {session.container for session in await self.directory.all_open()}

    async def _adopt(self, session: Session, container: str) -> None:
        """Append the adoption, which is the fence against the old owner; then adopt the cells."""
        adopted = await self._append(session, SessionAdopted(at=now(), nonce=nonce(), replica=self.replica))
        if adopted is None:
            return
        await self.sessions.leave(session.id)
        cells = await self._adopt_cells(session)
        memory_mb = self.slots.reserve_memory_unconditionally(
            session.spec.limits, self.opening.buffer_mb, session.spec.tenant
        )
        sandbox = SessionSandbox.adopt(self.engine, container, adopted.generation)
        await self.sessions.adopt(self.opening.own(adopted, sandbox, memory_mb), cells)
        logger.info("adopted session %s", session.id)

    async def _end_orphaned_cells(self, alive: Set[str]) -> None:
        """End the cells of this replica's sessions that a former owner accepted when it had already lost the session.

        The supervisor has not started them: it ignores the former owner."""
        owned = {*self.sessions.owned_ids()}
        for execution in await self._open_cells() if owned else ():
            if execution.spec.session_id in owned and execution.owner not in alive:
                lost = Failed(at=now(), nonce=nonce(), error_type=FailureType.LOST, error=NEVER_STARTED)
                event = Killed(at=now(), nonce=nonce()) if execution.kill_requested else lost
                try:
                    await self.executions.append(execution.id, execution.seq, [event], fence=execution.owner)
                except Conflict as error:
                    logger.info("%s: append conflict: %s", execution.id, error)

    async def _append(self, session: Session, event: SessionEvent) -> Session | None:
        """Append an event of an orphaned session. Return its new state; None if it has changed meanwhile."""
        fence = session.owner if session.owner != self.replica else None
        try:
            with anyio.CancelScope(shield=True):
                await self.log.append(session.id, session.seq, [event], fence=fence)
        except Conflict as error:
            logger.info("session %s: append conflict: %s", session.id, error)
            return None
        return fold_session(session.id, await self.log.read(session.id))

    async def _adopt_cells(self, session: Session) -> Sequence[Run]:
        """Return the open cells of a session, in the order of their acceptance. They belong to this replica now."""
        ids = [cell.id for cell in await self._open_cells() if cell.spec.session_id == session.id]
        runs = [await self._adopt_cell(execution_id) for execution_id in ids]
        return [run for run in runs if run is not None]

    async def _open_cells(self) -> Sequence[Execution]:
        """Return the open cells of all sessions, in the order of their acceptance."""
        found = []
        for execution_id in sorted((await self.executions.open_executions()).lengths):
            try:
                events = await self.executions.read(execution_id)
                execution = fold(execution_id, events) if events else None
            except CorruptLog as error:
                self.corrupt_logs.report(execution_id, error)
                continue
            is_open = execution is not None and execution.phase is not Phase.ENDED
            if execution is not None and is_open and execution.spec.session_id is not None:
                found.append(execution)
        return found

    async def _adopt_cell(self, execution_id: str) -> Run | None:
        """Make this replica the owner of a cell. Return None if the cell has ended.

        The adoption of the session is the fence. But the former owner of the cell may be a member again and append its
        end, so after a conflict this decides again by the new state."""
        while True:
            run = Run(execution_id)
            run.record(await self.executions.read(execution_id))
            taken = self._adoption_events(run.execution)
            try:
                if taken:
                    await self.executions.append(run.id, run.seq, taken)
            except Conflict as error:
                logger.info("%s: append conflict: %s", run.id, error)
                continue
            run.record(taken)
            if run.has_ended:
                return None
            self.cells.active_runs.add(run)
            return run

    def _adoption_events(self, execution: Execution) -> Sequence[Event]:
        """Return the events after which this replica owns a cell, or after which it is killed if that was requested
        while it waited."""
        at = now()
        if execution.phase is Phase.ENDED or execution.owner == self.replica:
            return []
        if execution.phase is Phase.RUNNING:
            return [Adopted(at=at, nonce=nonce(), replica=self.replica)]
        if execution.kill_requested:
            return [Killed(at=at, nonce=nonce())]
        released = Released(at=at, nonce=nonce(), reason="its replica is gone")
        return [released, Claimed(at=at, nonce=nonce(), replica=self.replica)]
