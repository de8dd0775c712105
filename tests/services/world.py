"""The log, blob store, membership and engines that replicas share, and the adapters of each process.
Each access calls `Process.passing`, where a process can be suspended (SIGSTOP) or crash (SIGKILL)."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence, Set
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import anyio
from anyio.abc import TaskGroup
from attrs import define, field, frozen

from pyexec.adapters.data_dir import DataDir
from pyexec.adapters.single_member import NoPeers
from pyexec.adapters.sqlite.log import FILE_NAME, EmbeddedLog
from pyexec.adapters.sqlite.store import SqliteStore, translate_errors
from pyexec.adapters.sqlite.store_thread import StoreThread
from pyexec.aio import Broadcast
from pyexec.domain.events import Event, Submitted
from pyexec.domain.execution import Execution, Phase, apply
from pyexec.domain.session_events import SessionEvent
from pyexec.errors import (
    Conflict,
    ConsulSessionLost,
    ContainerGone,
    CorruptLog,
    EngineError,
    ExecutorError,
    Unavailable,
)
from pyexec.ports import (
    ContainerSpec,
    ContainerUsage,
    EngineIdentity,
    ExecutionPage,
    IdempotencyKey,
    Inbox,
    Liveness,
    Member,
    Members,
    OpenExecutions,
    OutstandingWebhooks,
    SessionIndex,
    SetupSpec,
)
from tests.services.containers import Box, MemoryEngine
from tests.services.images import ProcessImages, ProcessSetup

T = TypeVar("T")

REJOIN_SECONDS = 1.0
SLOW_SECONDS = 20.0


class Crashed(BaseException):
    """Raised in the tasks of a crashed process, so that they do nothing more."""


class InlineStore(StoreThread):
    """The store of the embedded log without its thread: a step of it is one step of the event loop."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    async def run(self, work: Callable[[SqliteStore], T], then: Callable[[T], object] | None = None) -> T:
        with translate_errors():
            result = work(self._store)
        if then is not None:
            then(result)
        return result

    async def close(self) -> None:
        self._store.close()


class InlineLog(EmbeddedLog):
    """The embedded log with such a store."""

    @classmethod
    def at(cls, directory: Path) -> "InlineLog":
        store = SqliteStore.open(directory / FILE_NAME)
        return cls(
            DataDir.acquire(directory), InlineStore(store), store.open_executions(), store.webhooks(), None
        )

    @property
    def store(self) -> SqliteStore:
        return self._thread._store

    def index(self) -> Sequence[tuple[object, ...]]:
        return self.store._db.execute("SELECT * FROM executions ORDER BY id").fetchall()


@define(eq=False)
class Process:
    """One replica's process."""

    name: str
    crashed: bool = False
    held: anyio.Event | None = None
    was_held: bool = False
    hanging: list[Box] = field(factory=list)
    session: object | None = None
    member: Member | None = None
    left: bool = False
    leading: anyio.CancelScope | None = None
    append_faults: list[str] = field(factory=list)
    session_faults: list[str] = field(factory=list)

    async def passing(self) -> None:
        """Wait while the process is suspended; raise `Crashed` after a crash. Called around each access."""
        if self.crashed:
            raise Crashed
        await anyio.lowlevel.checkpoint()
        while self.held is not None and not self.crashed:
            await self.held.wait()
        if self.crashed:
            raise Crashed

    def crash(self) -> None:
        self.crashed = True
        self.resume()
        for box in self.hanging:
            box.hang_up()

    def hold(self) -> None:
        self.was_held = True
        if self.held is None:
            self.held = anyio.Event()

    def resume(self) -> None:
        held, self.held = self.held, None
        if held is not None:
            held.set()


@frozen(kw_only=True)
class Written:
    """A successful append: its time, its writer and the members at that time.

    `was_held`: the writer was suspended before. Its timers kept running meanwhile, unlike with SIGSTOP."""

    at: float
    writer: str
    was_held: bool
    event: Event
    before: Execution | None
    members: frozenset[str]
    leader: str | None


class World:
    """The state that all replicas share."""

    def __init__(self, directory: Path, tasks: TaskGroup) -> None:
        self.log = InlineLog.at(directory)
        self.tasks = tasks
        self.blobs: dict[str, bytes] = {}
        self.engines = {name: MemoryEngine(name) for name in ("engine-1", "engine-2")}
        self.members: dict[str, tuple[object, Member]] = {}
        self.processes: dict[str, Process] = {}
        self.leader: Process | None = None
        self.version = 0
        self.changes = Broadcast()
        self.store_away = False
        self.written: dict[str, list[Written]] = {}
        self.states: dict[str, Execution] = {}
        self.kills_asked: set[str] = set()
        self.faults = 0

    def notify_all(self) -> None:
        self.version += 1
        self.changes.notify_all()

    def check_store(self) -> None:
        if self.store_away:
            raise Unavailable("the store is away")

    def has_session(self, process: Process) -> bool:
        return process.name in self.members or self.leader is process

    def expire(self, process: Process) -> None:
        """End the sessions of the replica. It detects that later, and then creates a new one."""
        self.members.pop(process.name, None)
        self.depose(process)
        self.notify_all()
        if not process.crashed:
            self.tasks.start_soon(self._rejoin, process, process.session, name=f"{process.name} joins again")

    async def _rejoin(self, process: Process, lost: object) -> None:
        try:
            await anyio.sleep(REJOIN_SECONDS)
            await process.passing()
        except Crashed:
            return
        if process.session is lost and process.member is not None and not process.left:
            self.enter(process, process.member)

    def enter(self, process: Process, member: Member) -> None:
        self.processes[process.name] = process
        process.session, process.member = object(), member
        self.members[process.name] = (process.session, member)
        self.notify_all()

    def depose(self, process: Process) -> None:
        """End the leadership of a replica. The replica detects this later."""
        if self.leader is process:
            self.leader = None
            self.notify_all()
            if process.leading is not None:
                self.tasks.start_soon(self._tell_deposed, process, process.leading, name="deposed")

    async def _tell_deposed(self, process: Process, scope: anyio.CancelScope) -> None:
        try:
            await anyio.sleep(0.1)
            await process.passing()
        except Crashed:
            return
        scope.cancel()

    async def commit(
        self,
        process: Process,
        session: object,
        execution_id: str,
        after: int,
        events: Sequence[Event],
        key: IdempotencyKey | None,
        notify: str | None,
        fence: str | None,
    ) -> None:
        """Append in one step, under the Consul session of the request, and record it for the checks."""
        if process.name not in self.members or self.members[process.name][0] is not session:
            raise ConsulSessionLost(f"{process.name} is no member at present")
        if fence is not None and fence in self.members:
            raise Conflict(f"{fence} is still a member")
        await self.log.append(execution_id, after, events, key=key, notify=notify)
        for event in events:
            before = self.states.get(execution_id)
            self.written.setdefault(execution_id, []).append(
                Written(
                    at=anyio.current_time(),
                    writer=process.name,
                    was_held=process.was_held,
                    event=event,
                    before=before,
                    members=frozenset(self.members),
                    leader=self.leader.name if self.leader is not None else None,
                )
            )
            self.states[execution_id] = apply(execution_id, before, event)

    def running_executions(self, replica: str) -> list[str]:
        """Return the executions of a replica whose programs run now."""
        containers = {
            box.id for engine in self.engines.values() for box in engine.boxes.values() if box.running
        }
        running = (i for i, state in self.states.items() if state.phase is Phase.RUNNING)
        return [
            i for i in running if self.states[i].owner == replica and self.states[i].container in containers
        ]

    def token_of(self, execution_id: str) -> str:
        submitted = self.written[execution_id][0].event
        assert isinstance(submitted, Submitted)
        (pair,) = submitted.spec.env_vars
        return pair.removeprefix("TOKEN=")


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


class ProcessMembership:
    """`ports.Membership` as one process reaches it."""

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process

    @property
    def is_member(self) -> bool:
        return self._process.name in self._world.members

    async def _enter(self) -> None:
        await self._process.passing()
        self._world.check_store()

    async def join(self, member: Member) -> None:
        await self._enter()
        self._world.enter(self._process, member)

    async def update(self, member: Member) -> None:
        await self._enter()
        self._process.member = member
        if (joined := self._world.members.get(self._process.name)) is not None:
            self._world.members[self._process.name] = (joined[0], member)
            self._world.notify_all()

    async def members(self, since: int | None = None) -> Members:
        await self._enter()
        while self._world.version == since:
            await self._world.changes.next_event().wait()
        found = {name: member for name, (_, member) in self._world.members.items()}
        seen = Members(version=self._world.version, members=found)
        await self._process.passing()
        return seen

    @asynccontextmanager
    async def lead(self) -> AsyncIterator[None]:
        await self._enter()
        while self._world.leader is not None:
            await self._world.changes.next_event().wait()
            await self._enter()
        self._world.leader = self._process
        with anyio.CancelScope() as scope:
            self._process.leading = scope
            try:
                yield
            finally:
                if not self._process.crashed and self._world.leader is self._process:
                    self._world.leader = None
                    self._world.notify_all()

    async def evict(self, replica: str) -> None:
        await self._enter()
        self._world.expire(self._world.processes[replica])

    async def leave(self) -> None:
        self._process.left = True
        await self._process.passing()
        self._world.members.pop(self._process.name, None)
        self._world.notify_all()


class WorldPeers(NoPeers):
    """`ports.Peers` that knows which processes exist."""

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process

    async def probe(self, member: Member) -> Liveness:
        await self._process.passing()
        probed = self._world.processes[member.replica]
        if probed.crashed or probed.left:
            return Liveness.GONE
        return Liveness.UNKNOWN if probed.held is not None else Liveness.ANSWERS


class ProcessContainer:
    """`ports.Container`: one process's connection to a container."""

    def __init__(self, box: Box, process: Process, engine: MemoryEngine) -> None:
        self._box = box
        self._process = process
        self._engine = engine
        self._at = 0

    @property
    def id(self) -> str:
        return self._box.id

    @property
    def diagnostics(self) -> str:
        return ""

    async def write(self, data: bytes) -> None:
        await self._process.passing()
        if self._box.ended:
            raise EngineError("the container is gone")
        self._box.hear(data)
        await self._process.passing()

    async def read(self) -> bytes | None:
        while True:
            await self._process.passing()
            if self._at < len(self._box.output):
                data = bytes(self._box.output[self._at :])
                self._at = len(self._box.output)
                return data
            if self._box.ended:
                return None
            await self._box.changed.wait()

    async def usage(self) -> ContainerUsage:
        await self._process.passing()
        self._engine.check()
        return ContainerUsage(cpu_seconds=1.0, memory_bytes=1)

    async def has_oom_event(self) -> bool:
        await self._process.passing()
        self._engine.check()
        return self._box.ran_out_of_memory

    async def kill(self) -> None:
        await self._process.passing()
        self._engine.check()
        self._box.end()

    async def remove(self) -> None:
        await self._process.passing()
        if self._engine.away:
            self._engine.unremoved.add(self._box.id)  # the adapter does it later
        self._engine.check()
        self._engine.remove(self._box.id)

    async def detach(self) -> None:
        await self._process.passing()
        self._box.hang_up()


class ProcessEngine:
    """`ports.Engine` as one process reaches it."""

    def __init__(self, engine: MemoryEngine, process: Process) -> None:
        self._engine = engine
        self._process = process
        self.images = ProcessImages(engine, process)

    async def identify(self) -> EngineIdentity:
        return self._engine.identify()

    async def check(self) -> None:
        self._engine.check()

    async def start(self, spec: ContainerSpec) -> ProcessContainer:
        await self._process.passing()
        box = await self._engine.start(spec)
        self._process.hanging.append(box)
        try:
            await self._process.passing()
        except Crashed:
            box.hang_up()
            raise
        except BaseException:
            self._engine.remove(box.id)
            raise
        return ProcessContainer(box, self._process, self._engine)

    async def follow(self, container_id: str) -> ProcessContainer:
        await self._process.passing()
        self._engine.check()
        if container_id not in self._engine.boxes:
            raise ContainerGone(f"there is no container {container_id}")
        return ProcessContainer(self._engine.boxes[container_id], self._process, self._engine)

    async def start_setup(self, spec: SetupSpec) -> ProcessSetup:
        await self._process.passing()
        self._engine.check()
        return ProcessSetup(self._engine, self._process, spec)

    async def list_containers(self, labels: Mapping[str, str]) -> Mapping[str, Mapping[str, str]]:
        await self._process.passing()
        found = self._engine.list_containers(labels)
        await self._process.passing()
        return found

    async def remove_container(self, container_id: str) -> None:
        await self._process.passing()
        self._engine.check()
        self._engine.remove(container_id)

    async def close(self) -> None:
        """Do nothing, because there is no connection."""
