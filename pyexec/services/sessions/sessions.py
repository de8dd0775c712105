"""Open, use and close interpreter sessions. Requests for a session of another replica are left to the web layer."""

import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import anyio
from anyio.abc import TaskGroup, TaskStatus
from attrs import evolve

from pyexec.aio import Broadcast
from pyexec.domain.session import Session
from pyexec.domain.session_events import CloseReason
from pyexec.domain.session_request import SessionRequest, resolve_session
from pyexec.domain.session_view import SessionView, view_of
from pyexec.errors import KeyTaken, OwnedElsewhere, SessionMoving, ShuttingDown, TooManySessions, Unavailable
from pyexec.ports import Caller, EventLog, Membership, SessionLog
from pyexec.services.active_runs import Run
from pyexec.services.downloads import Download
from pyexec.services.idempotency import check_key, check_same_request
from pyexec.services.sessions.cells import Cell, CellRunner, request_fingerprint
from pyexec.services.sessions.config import SessionsConfig
from pyexec.services.sessions.directory import SessionDirectory, require_open
from pyexec.services.sessions.files import FileListing, SessionFiles
from pyexec.services.sessions.opening import Opening
from pyexec.services.sessions.owned_session import OwnedSession
from pyexec.services.sessions.placement import SessionPlacement
from pyexec.services.shutdown import log_closed

logger = logging.getLogger(__name__)

ADOPTION_WAIT_SECONDS = 30.0
"""How long a request waits for the adoption of a session whose owner is gone."""
POLL_SECONDS = 1.0
CLOSE_SECONDS = 10.0
"""How long the event log may delay the close of all sessions at shutdown."""


class Sessions:
    """The sessions of the deployment, as this replica can reach them. `serve` must be running while it is used.

    Methods raise `UnknownSession`, `SessionEnded` or `Unavailable`; `OwnedElsewhere` if another replica owns it."""

    def __init__(
        self,
        config: SessionsConfig,
        *,
        log: SessionLog,
        executions: EventLog,
        membership: Membership,
        cells: CellRunner,
        opening: Opening,
        placement: SessionPlacement,
        directory: SessionDirectory,
    ) -> None:
        self._config = config
        self._log = log
        self._executions = executions
        self._membership = membership
        self._cells = cells
        self._opening = opening
        self._placement = placement
        self._directory = directory
        self._owned: dict[str, OwnedSession] = {}
        self._changed = Broadcast()
        self._reserved: list[str] = []
        """The tenants of the sessions that are open here or being opened."""
        self._tasks: TaskGroup | None = None
        self._draining = False
        self._files = SessionFiles(config.file_limits)

    @property
    def open_count(self) -> int:
        """The number of sessions that this replica owns."""
        return len(self._owned)

    def owned_ids(self) -> Sequence[str]:
        """Return the ids of the sessions that this replica owns."""
        return tuple(self._owned)

    async def serve(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run the sessions of this replica until cancelled. Then they are left to adoption."""
        try:
            async with anyio.create_task_group() as self._tasks:
                task_status.started()
                await anyio.sleep_forever()
        finally:
            self._tasks = None

    async def drain(self, seconds: float) -> None:
        """Wait for the running cells, at most `seconds`. If no other replica can adopt the sessions, close them."""
        self._draining = True
        async with anyio.create_task_group() as draining:
            for session in self._owned.values():
                draining.start_soon(session.drain, seconds, name=f"drain {session.id}")
        if not self._config.leave_open:
            with anyio.move_on_after(CLOSE_SECONDS):
                await self._close_all()

    async def adopt(self, session: OwnedSession, cells: Sequence[Run]) -> None:
        """Run a session that this replica has adopted, and its open cells."""
        self._reserved.append(session.state.spec.tenant)
        await self._start(session, cells)

    async def leave(self, session_id: str) -> None:
        """Stop serving a session that another replica owns now. Do nothing if it is not served here."""
        owned = self._owned.get(session_id)
        if owned is not None:
            owned.log.left.set()
        while owned is not None and self._owned.get(session_id) is owned:
            await self._changed.wait()

    async def place(self, caller: Caller, tenant: str) -> None:
        """Raise `OwnedElsewhere` if only another replica has room for a session, `TooManySessions` if none has."""
        await self._placement.place(caller, tenant, self._reserved)

    async def open(
        self, request: SessionRequest, archive: AsyncIterator[bytes] | None, caller: Caller, tenant: str
    ) -> SessionView:
        """Open a session, which can take minutes if packages must be installed. Return it when it accepts cells.

        Raises `InvalidRequest`, `SetupFailed` or `ImageUnavailable` if the interpreter cannot start."""
        if self._draining:
            raise ShuttingDown
        await self.place(caller, tenant)
        spec = evolve(resolve_session(request, self._config.policy, self._config.limits), tenant=tenant)
        self._reserved.append(tenant)
        try:
            async with self._placement.forward_if_no_memory(caller if archive is None else None):
                session = await self._opening.open(spec, archive, self._spawn)
        except BaseException:
            self._reserved.remove(tenant)
            raise
        if self._tasks is None:  # the server shut down while the session was opening
            self._reserved.remove(tenant)
            await session.discard(CloseReason.SHUTDOWN)
            raise ShuttingDown
        await self._start(session)
        self._opening.pending.discard(session.id)
        if self._draining and not self._config.leave_open:
            await session.close(CloseReason.SHUTDOWN)
        try:
            with anyio.CancelScope(shield=True):
                await self._placement.check_opened(tenant)
        except (TooManySessions, Unavailable):
            await session.close(CloseReason.DELETED)
            raise
        return self._view(session.state)

    async def get(self, session_id: str, caller: Caller) -> SessionView:
        """Return the state of a session."""
        session = await self._directory.read(session_id, caller)
        if session.is_open and session.owner != self._config.replica and not caller.is_replica:
            owners = (await self._membership.members()).members
            if session.owner in owners:
                raise OwnedElsewhere(session.owner or "")
        return self._view(session)

    async def list_version(self, known: int | None, seconds: float) -> int:
        """Return the version of the list. If it is `known`, wait for the next one, at most `seconds`."""
        return await self._directory.version(known, seconds)

    async def list(self, caller: Caller) -> Sequence[SessionView]:
        """Return the sessions that the caller may use, newest first; closed ones until they are deleted."""
        return [self._view(session) for session in await self._directory.all() if caller.may_access(session)]

    async def locate(self, session_id: str, caller: Caller) -> None:
        """Raise `OwnedElsewhere` if another replica must handle a request for this session."""
        await self._owned_session(session_id, caller)

    async def close(self, session_id: str, caller: Caller) -> SessionView:
        """Close a session; its cells end. A closed session stays as it is."""
        session = await self._directory.read(session_id, caller)
        if session.is_open:
            owned = await self._owned_session(session_id, caller)
            await owned.close(CloseReason.DELETED)
            session = owned.state
        return self._view(session)

    async def evaluate(self, session_id: str, cell: Cell, caller: Caller) -> Run | str:
        """Accept a cell. Return its run, or the id of the execution that has the caller's idempotency key."""
        owned = await self._owned_session(session_id, caller)
        cell.check(self._config.policy)
        try:
            await check_key(self._executions, cell.key, owned.state.spec.tenant)
            return await owned.accept(
                lambda cell_id, starts: self._cells.accept(cell_id, owned.state, cell, starts)
            )
        except KeyTaken as taken:
            check_same_request(taken, request_fingerprint(owned.state, cell))
            return taken.execution_id

    async def interrupt(self, session_id: str, caller: Caller) -> bool:
        """Interrupt the running cell. Return False if none runs."""
        return await (await self._owned_session(session_id, caller)).interrupt()

    async def restart(self, session_id: str, caller: Caller) -> SessionView:
        """Replace the interpreter; its variables are lost, files stay."""
        owned = await self._owned_session(session_id, caller)
        await owned.restart()
        return self._view(owned.state)

    async def write_file(
        self, session_id: str, path: str, chunks: AsyncIterator[bytes], caller: Caller
    ) -> None:
        """Create or replace a file in /work."""
        await self._files.write(await self._owned_session(session_id, caller), path, chunks)

    async def read_file(self, session_id: str, path: str, caller: Caller) -> Download:
        """Return a file in /work. Raises `UnknownFile`."""
        return await self._files.read(await self._owned_session(session_id, caller), path)

    async def delete_file(self, session_id: str, path: str, caller: Caller) -> None:
        """Delete a file in /work. Raises `UnknownFile`."""
        await self._files.delete(await self._owned_session(session_id, caller), path)

    async def list_files(self, session_id: str, pattern: str, caller: Caller) -> FileListing:
        """Return the files in /work that match a pattern."""
        return await self._files.list(await self._owned_session(session_id, caller), pattern)

    async def archive(self, session_id: str, pattern: str, caller: Caller) -> AsyncIterator[bytes]:
        """Return the files in /work that match a pattern as a tar."""
        return self._files.archive(await self._owned_session(session_id, caller), pattern)

    async def refresh(self) -> None:
        """Leave the sessions that belong to other replicas since this replica lost its Consul session."""
        for owned in tuple(self._owned.values()):
            owned.catch_up(await self._log.read(owned.id))

    async def _start(self, session: OwnedSession, cells: Sequence[Run] = ()) -> None:
        if self._tasks is None:
            raise SessionMoving
        self._owned[session.id] = session
        self._changed.notify_all()
        with anyio.CancelScope(shield=True):
            await self._tasks.start(self._serve, session, cells, name=f"session {session.id}")

    async def _serve(
        self, session: OwnedSession, cells: Sequence[Run], *, task_status: TaskStatus[None]
    ) -> None:
        try:
            await session.serve(cells, task_status=task_status)
        finally:
            del self._owned[session.id]
            self._reserved.remove(session.state.spec.tenant)
            self._changed.notify_all()
        if session.unfinished:
            end = partial(self._cells.end_unfinished, session.unfinished)
            self._spawn(end, f"cells of {session.id}")

    def _spawn(self, task: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        if self._tasks is not None:
            self._tasks.start_soon(task, name=name)

    async def _close_all(self) -> None:
        sessions = dict(self._owned)
        try:
            async with anyio.create_task_group() as closing:
                for each in sessions.values():
                    closing.start_soon(each.close_with_retries, CloseReason.SHUTDOWN, name=f"close {each.id}")
            while self._owned:
                await self._changed.wait()
        finally:
            log_closed([each.id for each in sessions.values() if not each.state.is_open])

    async def _owned_session(self, session_id: str, caller: Caller) -> OwnedSession:
        """Return the session if this replica owns it. If its owner is gone, wait for another replica to adopt it."""
        with anyio.move_on_after(ADOPTION_WAIT_SECONDS):
            version: int | None = None
            while True:
                owned = self._owned.get(session_id)
                if owned is not None and caller.may_access(owned.state):
                    await owned.sandbox.ready.wait()
                    owned.check_open()
                    return owned
                session = await self._directory.read(session_id, caller)
                require_open(session)
                if session.owner == self._config.replica:  # it is about to be served here
                    with anyio.move_on_after(POLL_SECONDS):
                        await self._changed.wait()
                    continue
                if caller.is_replica:
                    break
                if session.owner in (await self._membership.members()).members:
                    raise OwnedElsewhere(session.owner or "")
                version = (await self._log.all(version)).version
        raise SessionMoving

    def _view(self, session: Session) -> SessionView:
        owned = self._owned.get(session.id)
        if owned is None or not session.is_open:
            return view_of(session)
        running = owned.running
        return view_of(
            session,
            waiting=owned.waiting_count,
            running=None if running is None else running.id,
            idle_since=owned.use.idle_since,
        )
