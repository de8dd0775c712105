"""The event log of a server that stands alone: one SQLite file, watched from inside the process only.

Inboxes are kept in memory: what they told is in the log, where a restarted server looks first.
The log is durable over any crash of the process. `synchronous=NORMAL` keeps the file whole when the machine itself
goes down, but the last few commits before that may be missing."""

import asyncio
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final, Self, TypeVar

import anyio
from anyio import CapacityLimiter, to_thread
from attrs import define, field

from pyexec.adapters.data_dir import DataDir
from pyexec.adapters.sqlite.store import SqliteStore, translated_errors
from pyexec.codec import decode_event
from pyexec.domain.events import Event
from pyexec.domain.execution import Status
from pyexec.domain.ids import is_execution_id
from pyexec.errors import Conflict, CorruptLog, InvalidRequest
from pyexec.ports import IdempotencyKey, Inbox, OpenExecutions, Page

T = TypeVar("T")

FILE_NAME: Final = "log.sqlite3"
REBUILD_AT_ONCE: Final = 50


@define(eq=False)
class _Watch:
    """One waiter's view of one execution: the greatest length it has been told of."""

    length: float = 0
    changed: anyio.Event = field(factory=anyio.Event)

    def notify(self, length: float) -> None:
        self.length = max(self.length, length)
        self.changed.set()
        self.changed = anyio.Event()


class EmbeddedLog:
    """`ports.EventLog` on SQLite. `open` it, and `close` it or use it as a context manager."""

    def __init__(self, data_dir: DataDir, store: SqliteStore, replica: str | None) -> None:
        self._replica = replica
        self._data_dir = data_dir
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._limiter = CapacityLimiter(1)
        # A task that asyncio itself cancels lets go of the limiter while its thread still works.
        self._mutex = threading.Lock()
        self._watches: dict[str, set[_Watch]] = {}
        self._inboxes: dict[str, dict[str, int]] = {}
        self._version = 0
        self._index_changed = anyio.Event()

    @classmethod
    async def open(cls, directory: Path, replica: str | None = None) -> Self:
        """The log under `directory`, made if need be. `replica` is the one that opens it: as the directory is
        locked, every other is gone.

        Raises `SettingsError` when the directory cannot be used or another process holds it, and `CorruptLog`
        when the file in it is no log that this version can read."""
        return cls(*await to_thread.run_sync(_open, directory), replica)

    async def close(self) -> None:
        """Closes the file and lets the directory go."""
        with anyio.CancelScope(shield=True):
            try:
                await self._run(lambda store: store.close())
            finally:
                self._data_dir.release()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    @property
    def deployment(self) -> str:
        """The id of this server's data directory, the same for its whole life."""
        return self._data_dir.deployment

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
        if not events:
            raise ValueError("an append needs events")
        if key is not None and after != 0:
            raise ValueError("a key is bound together with the first event only")
        if fence is not None and fence == self._replica:
            raise Conflict(f"{fence} is still a member")

        def write(store: SqliteStore) -> None:
            store.append(execution_id, after, events, key)
            self._announce(execution_id, after + len(events), notify)

        await self._run(write)

    async def read(self, execution_id: str, after: int = 0) -> Sequence[Event]:
        rows = await self._run(lambda store: store.read(execution_id, after))
        if any(seq != expected for expected, (seq, _) in enumerate(rows, after + 1)):
            raise CorruptLog(f"{execution_id}: an event is missing after number {after}")
        return [decode_event(event) for _, event in rows]

    async def wait(self, execution_id: str, after: int) -> None:
        with self._watching(execution_id) as watch:
            watch.notify(await self._run(lambda store: _length(store, execution_id)))
            while watch.length <= after:
                await watch.changed.wait()

    async def open_executions(self, since: int | None = None) -> OpenExecutions:
        while self._version == since:
            await self._index_changed.wait()
        # Taken before the read: what changes in between is shown twice, and never missed.
        version = self._version
        lengths = await self._run(lambda store: store.open_lengths())
        return OpenExecutions(version=version, lengths=lengths)

    async def inbox(self, replica: str, since: int | None = None) -> Inbox:
        while self._version == since:
            await self._index_changed.wait()
        return Inbox(version=self._version, told=dict(self._inboxes.get(replica, {})))

    async def acknowledge(self, replica: str, execution_id: str, number: int) -> None:
        told = self._inboxes.get(replica, {})
        if told.get(execution_id) == number:
            del told[execution_id]
        if not told:
            self._inboxes.pop(replica, None)

    async def page(self, *, status: Status | None, limit: int, cursor: str | None) -> Page:
        if cursor is not None and not is_execution_id(cursor):
            raise InvalidRequest("cursor must be the next_cursor of an earlier answer", field="cursor")
        ids = await self._run(lambda store: store.newest(status=status, before=cursor, limit=limit + 1))
        return Page(ids=ids[:limit], next_cursor=ids[limit - 1] if len(ids) > limit else None)

    async def ended_before(self, moment: datetime, limit: int) -> Sequence[str]:
        return await self._run(lambda store: store.ended_before(moment, limit))

    async def key_owner(self, key_hash: str) -> tuple[str, str] | None:
        return await self._run(lambda store: store.key_owner(key_hash))

    async def retire(self, execution_id: str) -> None:
        def remove(store: SqliteStore) -> None:
            if store.retire(execution_id):
                self._announce(execution_id, math.inf)

        await self._run(remove)

    async def check(self) -> None:
        await self._run(lambda store: store.newest(status=None, before=None, limit=1))

    async def rebuild_index(self) -> Mapping[str, CorruptLog]:
        """A few at a time, so that nobody waits long meanwhile."""
        after: str | None = ""
        unreadable: dict[str, CorruptLog] = {}
        while after is not None:
            step = partial(SqliteStore.rebuild_index, after=after, limit=REBUILD_AT_ONCE)
            after, failures = await self._run(step)
            unreadable |= failures
        return unreadable

    async def _run(self, work: Callable[[SqliteStore], T]) -> T:
        """Runs `work` in a thread, one at a time; once begun it is completed, even for a cancelled caller."""

        def call() -> T:
            with self._mutex, translated_errors():
                return work(self._store)

        return await to_thread.run_sync(call, limiter=self._limiter)

    def _announce(self, execution_id: str, length: float, notify: str | None = None) -> None:
        """Called in the worker thread, so that watchers hear of a commit whose caller was cancelled, too."""
        self._loop.call_soon_threadsafe(self._tell, execution_id, length, notify)

    def _tell(self, execution_id: str, length: float, replica: str | None) -> None:
        self._version += 1
        if replica is not None:
            self._inboxes.setdefault(replica, {})[execution_id] = self._version
        for watch in self._watches.get(execution_id, ()):
            watch.notify(length)
        self._index_changed.set()
        self._index_changed = anyio.Event()

    @contextmanager
    def _watching(self, execution_id: str) -> Iterator[_Watch]:
        watch = _Watch()
        watches = self._watches.setdefault(execution_id, set())
        watches.add(watch)
        try:
            yield watch
        finally:
            watches.discard(watch)
            if not watches:
                del self._watches[execution_id]


def _open(directory: Path) -> tuple[DataDir, SqliteStore]:
    data_dir = DataDir.hold(directory)
    try:
        with translated_errors():
            return data_dir, SqliteStore.open(directory / FILE_NAME)
    except BaseException:
        data_dir.release()
        raise


def _length(store: SqliteStore, execution_id: str) -> float:
    """How many events there are; a retired log counts as longer than any."""
    length = store.entry(execution_id).length
    return math.inf if length == 0 and store.is_retired(execution_id) else length
