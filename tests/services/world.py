"""The log, blob store, membership and engines that replicas share.

A process reaches them through the adapters in `process_stores.py`, `process_members.py` and `process_engine.py`. Each
access calls `Process.passing`, where a process can be suspended (SIGSTOP) or crash (SIGKILL)."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self, TypeVar

import anyio
from anyio.abc import TaskGroup
from attrs import define, field, frozen

from pyexec.adapters.data_dir import DataDir
from pyexec.adapters.sqlite.log import FILE_NAME, EmbeddedLog
from pyexec.adapters.sqlite.store import SqliteStore, translate_errors
from pyexec.adapters.sqlite.store_thread import StoreThread
from pyexec.aio import Broadcast
from pyexec.domain.events import Event, Submitted
from pyexec.domain.execution import Execution, Phase, apply
from pyexec.errors import Conflict, ConsulSessionLost, Unavailable
from pyexec.ports import IdempotencyKey, Member
from tests.services.containers import Box, MemoryEngine

T = TypeVar("T")

REJOIN_SECONDS = 1.0


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
    def at(cls, directory: Path) -> Self:
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
