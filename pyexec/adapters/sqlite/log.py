"""The embedded event log, for a server without a cluster: one SQLite file, which only this process uses.

Every commit survives a crash of the process. After a crash of the machine the file is intact, but the last commits
may be missing (`synchronous=NORMAL`). Inboxes are kept in memory: a restarted server reads the log instead. The list of
open executions is kept in memory, too: the leader reads it after every commit."""

import math
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final, Self, TypeVar

import anyio
from anyio import to_thread
from attrs import define, field

from pyexec.adapters.data_dir import DataDir
from pyexec.adapters.sqlite.session_log import EmbeddedSessionLog
from pyexec.adapters.sqlite.store import IndexEntry, SqliteStore, translate_errors
from pyexec.adapters.sqlite.store_thread import StoreThread
from pyexec.aio import Broadcast, SingleFlight, registered
from pyexec.codec import decode_event
from pyexec.domain.events import Event, Released
from pyexec.domain.execution import Status
from pyexec.errors import Conflict, CorruptLog
from pyexec.ports import (
    ExecutionPage,
    IdempotencyKey,
    Inbox,
    OpenExecutions,
    OutstandingWebhooks,
    check_append,
    check_cursor,
    receiver_in,
)

T = TypeVar("T")

FILE_NAME: Final = "log.sqlite3"
REBUILD_BATCH: Final = 50


@define(eq=False)
class _Waiter:
    """A waiter for one execution, with the greatest log length that it was notified of."""

    length: float = 0
    changed: Broadcast = field(factory=Broadcast)

    def notify(self, length: float) -> None:
        self.length = max(self.length, length)
        self.changed.notify_all()


class EmbeddedLog:
    """`ports.EventLog` on SQLite. Close it, or use it as a context manager."""

    def __init__(
        self,
        data_dir: DataDir,
        thread: StoreThread,
        open_executions: tuple[dict[str, int], set[str]],
        webhooks: dict[str, str],
        replica: str | None,
    ) -> None:
        self._replica = replica
        self._data_dir = data_dir
        self._thread = thread
        self._lengths, self._queued = open_executions
        self._waiters: dict[str, set[_Waiter]] = {}
        self._version = time.time_ns()  # versions of an earlier process never come again
        self._changed = Broadcast()
        self._inboxes: dict[str, dict[str, int]] = {}
        self._inbox_version = 0
        self._inbox_changed = Broadcast()
        self._webhooks = webhooks
        self._webhooks_version = 0
        self._webhooks_changed = Broadcast()
        self._check_once = SingleFlight(partial(thread.start, SqliteStore.check))
        self.sessions = EmbeddedSessionLog(thread, replica)

    @classmethod
    async def open(cls, directory: Path, replica: str | None = None) -> Self:
        """Open the log in `directory`; create it if it does not exist. `replica` is the name of this replica: all
        others are gone, because the directory is locked.

        Raises `SettingsError` if the directory cannot be used or is locked by another process, and `CorruptLog`
        if the file in it is not a log that this version can read."""
        data_dir, store, open_executions, webhooks = await to_thread.run_sync(_open, directory)
        return cls(data_dir, StoreThread(store), open_executions, webhooks, replica)

    async def close(self) -> None:
        """Close the file and unlock the directory."""
        with anyio.CancelScope(shield=True):
            try:
                await self._thread.close()
            finally:
                self._data_dir.release()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    @property
    def deployment(self) -> str:
        """The id of the data directory, which never changes."""
        return self._data_dir.deployment

    @property
    def copy_id(self) -> str | None:
        """A random id if the data directory is a copy, whose original another server may use; else None."""
        return self._data_dir.copy_id

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
        check_append(after, events, key)
        if fence is not None and fence == self._replica:
            raise Conflict(f"{fence} is still a member")

        def record(entry: IndexEntry) -> None:
            if (receiver := receiver_in(after, events)) is not None:
                self._set_webhook(execution_id, receiver)
            self._record_append(execution_id, entry, events[-1], notify)

        await self._thread.run(lambda store: store.append(execution_id, after, events, key), record)

    async def read(self, execution_id: str, after: int = 0) -> Sequence[Event]:
        rows = await self._thread.run(lambda store: store.read(execution_id, after))
        if any(seq != expected for expected, (seq, _) in enumerate(rows, after + 1)):
            raise CorruptLog(f"{execution_id}: an event after number {after} is missing")
        return [decode_event(event) for _, event in rows]

    async def wait(self, execution_id: str, after: int) -> None:
        with registered(self._waiters, execution_id, _Waiter()) as waiter:
            waiter.notify(await self._thread.run(lambda store: _length(store, execution_id, after)))
            while waiter.length <= after:
                await waiter.changed.wait()

    async def open_executions(self, since: int | None = None) -> OpenExecutions:
        while self._version == since:
            await self._changed.wait()
        return OpenExecutions(version=self._version, lengths=dict(self._lengths), queued=set(self._queued))

    async def inbox(self, replica: str, since: int | None = None) -> Inbox:
        while self._inbox_version == since:
            await self._inbox_changed.wait()
        return Inbox(version=self._inbox_version, entries=dict(self._inboxes.get(replica, {})))

    async def acknowledge(self, replica: str, execution_id: str, revision: int) -> None:
        entries = self._inboxes.get(replica, {})
        if entries.get(execution_id) == revision:
            del entries[execution_id]
        if not entries:
            self._inboxes.pop(replica, None)

    async def list_executions(
        self, *, status: Status | None, limit: int, cursor: str | None
    ) -> ExecutionPage:
        check_cursor(cursor)
        ids = await self._thread.run(
            lambda store: store.list_ids(status=status, before=cursor, limit=limit + 1)
        )
        return ExecutionPage(ids=ids[:limit], next_cursor=ids[limit - 1] if len(ids) > limit else None)

    async def list_ended(
        self, before: datetime, limit: int, *, undelivered_before: datetime | None = None
    ) -> Sequence[str]:
        return await self._thread.run(
            lambda store: store.list_ended(before, limit, undelivered_before or before)
        )

    async def find_by_key(self, key_hash: str) -> tuple[str, str] | None:
        return await self._thread.run(lambda store: store.find_by_key(key_hash))

    async def retire(self, execution_id: str) -> None:
        def record(existed: bool) -> None:
            if existed:
                self._set_webhook(execution_id, None)
                self._notify(execution_id, math.inf)

        await self._thread.run(lambda store: store.retire(execution_id), record)

    async def erase_retired(self) -> None:
        await self._thread.run(SqliteStore.erase_deleted)

    async def webhooks(self, since: int | None = None) -> OutstandingWebhooks:
        while self._webhooks_version == since:
            await self._webhooks_changed.wait()
        return OutstandingWebhooks(version=self._webhooks_version, receivers=dict(self._webhooks))

    async def remove_webhook(self, execution_id: str) -> None:
        def record(_: None) -> None:
            self._set_webhook(execution_id, None)

        await self._thread.run(lambda store: store.remove_webhook(execution_id), record)

    async def check(self) -> None:
        """Wait for one check. If the disk hangs, a caller can be cancelled; later callers wait for the same check."""
        await self._check_once.wait()

    async def rebuild_index(self) -> Mapping[str, CorruptLog]:
        """Rebuild in batches, so that other calls need not wait long."""
        after: str | None = ""
        unreadable: dict[str, CorruptLog] = {}
        while after is not None:
            step = partial(SqliteStore.rebuild_index, after=after, limit=REBUILD_BATCH)
            after, failures = await self._thread.run(step)
            unreadable |= failures
        await self._thread.run(lambda store: store.open_executions(), self._set_open)
        return unreadable

    def _record_append(self, execution_id: str, entry: IndexEntry, last: Event, notify: str | None) -> None:
        if entry.ended_at is None:
            self._lengths[execution_id] = entry.length
        else:
            self._lengths.pop(execution_id, None)
        if entry.length == 1 or isinstance(last, Released):
            self._queued.add(execution_id)
        else:
            self._queued.discard(execution_id)
        if notify is not None:
            self._inbox_version += 1
            self._inboxes.setdefault(notify, {})[execution_id] = self._inbox_version
            self._inbox_changed.notify_all()
        self._notify(execution_id, entry.length)

    def _set_webhook(self, execution_id: str, receiver: str | None) -> None:
        if receiver is not None:
            self._webhooks[execution_id] = receiver
        elif self._webhooks.pop(execution_id, None) is None:
            return
        self._webhooks_version += 1
        self._webhooks_changed.notify_all()

    def _set_open(self, found: tuple[dict[str, int], set[str]]) -> None:
        self._lengths, self._queued = found

    def _notify(self, execution_id: str, length: float) -> None:
        self._version += 1
        for waiter in self._waiters.get(execution_id, ()):
            waiter.notify(length)
        self._changed.notify_all()


def _open(
    directory: Path,
) -> tuple[DataDir, SqliteStore, tuple[dict[str, int], set[str]], dict[str, str]]:
    data_dir = DataDir.acquire(directory)
    try:
        with translate_errors():
            store = SqliteStore.open(directory / FILE_NAME)
            try:
                return data_dir, store, store.open_executions(), store.webhooks()
            except BaseException:
                store.close()
                raise
    except BaseException:
        data_dir.release()
        raise


def _length(store: SqliteStore, execution_id: str, known: int) -> float:
    """Return the number of events; infinity for a retired execution, so that every wait ends.

    An execution without events is retired if it had `known` events before, or if it is listed as retired."""
    length = store.entry(execution_id).length
    return math.inf if length == 0 and (known or store.is_retired(execution_id)) else length
