"""The event log, the log of sessions and the blob store, as one process reaches them."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence, Set

import anyio

from pyexec.domain.events import Event
from pyexec.domain.session_events import SessionEvent
from pyexec.errors import Conflict, ConsulSessionLost, CorruptLog, ExecutorError, Unavailable
from pyexec.ports import (
    ExecutionPage,
    IdempotencyKey,
    Inbox,
    OpenExecutions,
    OutstandingWebhooks,
    SessionIndex,
)
from tests.services.world import Process, World

SLOW_SECONDS = 20.0


class ProcessLog:
    """`ports.EventLog` as one process reaches it."""

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process

    async def append(
        self,
        execution_id: str,
        after: int,
        events: Sequence[Event],
        *,
        key: IdempotencyKey | None = None,
        notify: str | None = None,
        fence: str | None = None,
    ) -> None:
        await self._enter()
        fault = self._process.append_faults.pop(0) if self._process.append_faults else None
        sent = (self._process.session, execution_id, after, events, key, notify, fence)
        if fault == "never":
            raise Unavailable("it was not written")
        if fault == "late":
            self._world.tasks.start_soon(self._land, sent, name="a late append")
            raise Unavailable("it may be written yet")
        try:
            await self._world.commit(self._process, *sent)
        except ExecutorError:
            await self._process.passing()
            raise
        await self._process.passing()
        if fault == "unheard":
            raise Unavailable("it was written, but the response was lost")

    async def _land(
        self, sent: tuple[object, str, int, Sequence[Event], IdempotencyKey | None, str | None, str | None]
    ) -> None:
        await anyio.sleep(0.3)
        try:
            await self._world.commit(self._process, *sent)
        except ExecutorError:
            return

    async def _enter(self) -> None:
        await self._process.passing()
        self._world.check_store()

    async def read(self, execution_id: str, after: int = 0) -> Sequence[Event]:
        await self._enter()
        found = await self._world.log.read(execution_id, after)
        await self._process.passing()
        return found

    async def wait(self, execution_id: str, after: int) -> None:
        await self._enter()
        await self._world.log.wait(execution_id, after)
        await self._process.passing()

    async def open_executions(self, since: int | None = None) -> OpenExecutions:
        await self._enter()
        found = await self._world.log.open_executions(since)
        await self._process.passing()
        return found

    async def inbox(self, replica: str, since: int | None = None) -> Inbox:
        await self._enter()
        found = await self._world.log.inbox(replica, since)
        await self._process.passing()
        return found

    async def acknowledge(self, replica: str, execution_id: str, revision: int) -> None:
        await self._enter()
        await self._world.log.acknowledge(replica, execution_id, revision)
        await self._process.passing()

    async def list_executions(self, **arguments: object) -> ExecutionPage:
        await self._enter()
        return await self._world.log.list_executions(**arguments)  # type: ignore[arg-type]

    async def list_ended(self, *arguments: object, **named: object) -> Sequence[str]:
        await self._enter()
        return await self._world.log.list_ended(*arguments, **named)  # type: ignore[arg-type]

    async def webhooks(self, since: int | None = None) -> OutstandingWebhooks:
        await self._enter()
        found = await self._world.log.webhooks(since)
        await self._process.passing()
        return found

    async def remove_webhook(self, execution_id: str) -> None:
        await self._enter()
        await self._world.log.remove_webhook(execution_id)

    async def find_by_key(self, key_hash: str) -> tuple[str, str] | None:
        await self._enter()
        found = await self._world.log.find_by_key(key_hash)
        await self._process.passing()
        return found

    async def retire(self, execution_id: str) -> None:
        await self._enter()
        await self._world.log.retire(execution_id)

    async def erase_retired(self) -> None:
        await self._enter()
        await self._world.log.erase_retired()

    async def rebuild_index(self) -> Mapping[str, CorruptLog]:
        await self._enter()
        return await self._world.log.rebuild_index()

    async def check(self) -> None:
        await self._enter()


class ProcessSessionLog:
    """`ports.SessionLog` as one process reaches it."""

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process

    async def append(
        self, session_id: str, after: int, events: Sequence[SessionEvent], *, fence: str | None = None
    ) -> None:
        await self._enter()
        fault = self._process.session_faults.pop(0) if self._process.session_faults else None
        sent = (self._process.session, session_id, after, events, fence)
        if fault == "never":
            raise Unavailable("it was not written")
        if fault == "late":
            self._world.tasks.start_soon(self._land, sent, name="a late append")
            raise Unavailable("it may be written yet")
        await self._commit(*sent)
        if fault == "slow":
            await anyio.sleep(SLOW_SECONDS)
        await self._process.passing()
        if fault == "unheard":
            raise Unavailable("it was written, but the response was lost")

    async def _land(self, sent: tuple[object, str, int, Sequence[SessionEvent], str | None]) -> None:
        await anyio.sleep(0.3)
        try:
            await self._commit(*sent)
        except ExecutorError:
            return

    async def _commit(
        self, joined: object, session_id: str, after: int, events: Sequence[SessionEvent], fence: str | None
    ) -> None:
        member = self._world.members.get(self._process.name)
        if member is None or member[0] is not joined:
            raise ConsulSessionLost(f"{self._process.name} is no member at present")
        if fence is not None and fence in self._world.members:
            raise Conflict(f"{fence} is still a member")
        await self._world.log.sessions.append(session_id, after, events)

    async def read(self, session_id: str) -> Sequence[SessionEvent]:
        await self._enter()
        found = await self._world.log.sessions.read(session_id)
        await self._process.passing()
        return found

    async def all(self, since: int | None = None) -> SessionIndex:
        await self._enter()
        found = await self._world.log.sessions.all(since)
        await self._process.passing()
        return found

    async def retire(self, session_id: str) -> None:
        await self._enter()
        await self._world.log.sessions.retire(session_id)

    async def _enter(self) -> None:
        await self._process.passing()
        self._world.check_store()


class ProcessBlobs:
    """`ports.BlobStore` as one process reaches it."""

    bytes_max: int | None = None

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process

    async def put(self, name: str, chunks: AsyncIterator[bytes]) -> None:
        data = b"".join([chunk async for chunk in chunks])
        await self._process.passing()
        self._world.check_store()
        self._world.blobs[name] = data
        await self._process.passing()

    async def read(self, name: str) -> AsyncIterator[bytes]:
        await self._process.passing()
        self._world.check_store()
        if name not in self._world.blobs:
            raise Unavailable(f"there is no blob {name}")
        yield self._world.blobs[name]

    async def delete(self, name: str) -> None:
        await self._process.passing()
        self._world.check_store()
        self._world.blobs.pop(name, None)

    async def sweep(self, alive: Set[str], exists: Callable[[str], Awaitable[bool]]) -> None:
        await self._process.passing()
