"""The event log in Consul, shared by all replicas of a deployment."""

import logging
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

import anyio

from pyexec.adapters.consul.append import AppendRequest, Commit, ConflictCause, Fence
from pyexec.adapters.consul.index import (
    InflightWatch,
    InvalidKeyReporter,
    StatusIndex,
    open_executions,
    read_inflight,
    read_webhooks,
)
from pyexec.adapters.consul.kv import ConsulKV, TransactionConflict
from pyexec.adapters.consul.rebuild import rebuild_index
from pyexec.adapters.consul.retention import EndedScanner, Retirement
from pyexec.adapters.consul.schema import (
    INFLIGHT,
    LEADER,
    WEBHOOKS,
    InflightEntry,
    decode_binding,
    event_key,
    events_prefix,
    idempotency_key,
    inbox_prefix,
    tombstone_key,
)
from pyexec.codec import decode_event
from pyexec.domain.events import Event, KillRequested, Terminal
from pyexec.domain.execution import OPEN_STATUSES, Status
from pyexec.domain.ids import is_execution_id
from pyexec.errors import Conflict, ConsulSessionLost, CorruptLog, KeyTaken
from pyexec.ports import (
    ExecutionPage,
    IdempotencyKey,
    Inbox,
    OpenExecutions,
    OutstandingWebhooks,
    check_append,
    check_cursor,
)

logger = logging.getLogger(__name__)


class ConsulLog:
    """`ports.EventLog` on Consul. `open` it as a context manager: its watch runs inside.

    `fence` returns the operation that fails a transaction once the session of this replica is lost. `invalid`
    is shared with other readers of the same keys."""

    def __init__(self, kv: ConsulKV, fence: Fence, invalid: InvalidKeyReporter) -> None:
        self._kv = kv
        self._fence = fence
        self._invalid = invalid
        self._watch = InflightWatch(kv, invalid)
        self._statuses = StatusIndex(kv, invalid)
        self._scanner = EndedScanner(kv, invalid)
        self._retirement = Retirement(kv)

    @classmethod
    @asynccontextmanager
    async def open(
        cls, kv: ConsulKV, fence: Fence, invalid: InvalidKeyReporter | None = None
    ) -> AsyncIterator["ConsulLog"]:
        """Open the log under the prefix of `kv`."""
        log = cls(kv, fence, invalid or InvalidKeyReporter())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(log._watch.run, name="watch of open executions")
            try:
                yield log
            finally:
                tasks.cancel_scope.cancel()

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
        request = AppendRequest(
            execution_id=execution_id, after=after, events=events, key=key, notify=notify, fence=fence
        )
        before = await self._entry_before(request)
        commit = Commit(self._kv, execution_id, self._fence, lambda: self._is_written(request))
        while True:
            try:
                return await commit.run(request.operations(before))
            except TransactionConflict as conflict:
                before = await self._resolve(request, ConflictCause.of(request, conflict), conflict)

    async def read(self, execution_id: str, after: int = 0) -> Sequence[Event]:
        listing = await self._kv.recurse(events_prefix(execution_id))
        for seq, entry in enumerate(listing.entries, 1):
            if entry.key != event_key(execution_id, seq):
                raise CorruptLog(f"{execution_id}: found the key {entry.key} in place of event {seq}")
        return [decode_event(entry.value) for entry in listing.entries[after:]]

    async def wait(self, execution_id: str, after: int) -> None:
        last_length = -1
        with self._watch.subscribe(execution_id) as changed:
            while True:
                change = changed.next_event()
                self._watch.check()
                length: float | None = self._watch.open.lengths.get(execution_id)
                if length is not None:
                    last_length = int(length)
                elif last_length >= after:
                    return  # it was open and has ended, so the log has at least one more event
                else:
                    length = await self._length(execution_id)
                if length > after:
                    return
                await change.wait()

    async def open_executions(self, since: int | None = None) -> OpenExecutions:
        if since is None:
            listing = await self._kv.recurse(INFLIGHT)
            self._watch.update(listing)
            return open_executions(listing, self._invalid)
        await self._watch.wait_for_change(since)
        return self._watch.open

    async def inbox(self, replica: str, since: int | None = None) -> Inbox:
        prefix = inbox_prefix(replica)
        listing = await self._kv.recurse(prefix, since)
        if all(entry.key != prefix for entry in listing.entries):
            # Every write to Consul ends a blocking query on an empty folder; so the folder gets a key.
            await self._kv.put(prefix, b"", session=self._fence().session)
        revisions = {entry.key.removeprefix(prefix): entry.index for entry in listing.entries}
        return Inbox(
            version=listing.index,
            entries={name: revision for name, revision in revisions.items() if is_execution_id(name)},
        )

    async def acknowledge(self, replica: str, execution_id: str, revision: int) -> None:
        await self._kv.delete(f"{inbox_prefix(replica)}{execution_id}", index=revision)

    async def list_executions(
        self, *, status: Status | None, limit: int, cursor: str | None
    ) -> ExecutionPage:
        check_cursor(cursor)
        found = sorted(await self._ids_with(status), reverse=True)
        ids = [execution_id for execution_id in found if cursor is None or execution_id < cursor]
        return ExecutionPage(ids=ids[:limit], next_cursor=ids[limit - 1] if len(ids) > limit else None)

    async def list_ended(
        self, before: datetime, limit: int, *, undelivered_before: datetime | None = None
    ) -> Sequence[str]:
        return await self._scanner.list_ended(before, limit, undelivered_before or before)

    async def find_by_key(self, key_hash: str) -> tuple[str, str] | None:
        _, entry = await self._kv.get(idempotency_key(key_hash))
        if entry is None:
            return None
        try:
            return decode_binding(entry.value)
        except ValueError as error:
            raise CorruptLog(f"{entry.key} names no execution: {error}") from error

    async def retire(self, execution_id: str) -> None:
        await self._retirement.retire(execution_id)
        self._scanner.forget(execution_id)

    async def erase_retired(self) -> None:
        """Do nothing: Consul itself decides when deleted entries leave its files."""

    async def webhooks(self, since: int | None = None) -> OutstandingWebhooks:
        listing = await self._kv.recurse(WEBHOOKS, since)
        if all(entry.key != WEBHOOKS for entry in listing.entries):
            # Every write to Consul ends a blocking query on an empty folder; so the folder gets a key.
            await self._kv.put(WEBHOOKS, b"", index=0)
        return OutstandingWebhooks(version=listing.index, receivers=read_webhooks(listing.entries))

    async def remove_webhook(self, execution_id: str) -> None:
        await self._kv.delete(f"{WEBHOOKS}{execution_id}")

    async def check(self) -> None:
        await self._kv.get(LEADER)

    async def rebuild_index(self) -> Mapping[str, CorruptLog]:
        return await rebuild_index(self._kv, self._invalid)

    async def _entry_before(self, request: AppendRequest) -> InflightEntry:
        """Return the index entry before the append.

        It is read only for a kill request. All other events determine the phase and the owner."""
        if request.after == 0 or not isinstance(request.events[0], KillRequested):
            return InflightEntry(owner=self._own_name())
        _, entry = await self._kv.get(f"{INFLIGHT}{request.execution_id}")
        found = read_inflight([entry] if entry else [], self._invalid)
        return found.get(request.execution_id, InflightEntry())

    def _own_name(self) -> str:
        """Return the name of this replica: a replica that appends to a claimed execution owns it."""
        return self._fence().key.rpartition("/")[2]

    async def _is_written(self, request: AppendRequest) -> bool:
        """Return True if the log has the first event of the append: the event at its position has the same nonce."""
        _, entry = await self._kv.get(event_key(request.execution_id, request.after + 1))
        return entry is not None and decode_event(entry.value).nonce == request.events[0].nonce

    async def _resolve(
        self, request: AppendRequest, cause: ConflictCause, conflict: TransactionConflict
    ) -> InflightEntry:
        """Raise the error of `EventLog.append` for this cause.

        If the only cause is a missing index entry, restore and return the entry, so that the append can be retried."""
        execution_id = request.execution_id
        if cause.key_bound and request.key is not None:
            bound = await self.find_by_key(request.key.key_hash)
            if bound is not None and bound[0] != execution_id:
                raise KeyTaken(*bound) from conflict
        if cause.session_lost:
            raise ConsulSessionLost(str(conflict)) from conflict
        if cause.only_index:
            return await self._restore_entry(request, conflict)
        raise Conflict(f"{execution_id} does not end at event {request.after}: {conflict}") from conflict

    async def _restore_entry(self, request: AppendRequest, conflict: TransactionConflict) -> InflightEntry:
        """Put an open execution back into the index. Raises `Conflict` if it has ended."""
        events = await self.read(request.execution_id)
        if len(events) != request.after or isinstance(events[-1], Terminal):
            raise Conflict(f"{request.execution_id} has ended: {conflict}") from conflict
        entry = InflightEntry()
        for event in events:
            entry.apply(event)
        logger.error("index entry of open execution %s was missing; restored", request.execution_id)
        await self._kv.put(f"{INFLIGHT}{request.execution_id}", entry.encode(), index=0)
        return entry

    async def _length(self, execution_id: str) -> float:
        """Return the number of events; infinity for a retired execution, so that every wait ends."""
        keys = await self._kv.keys(events_prefix(execution_id))
        if keys:
            return len(keys)
        _, tombstone = await self._kv.get(tombstone_key(execution_id))
        return 0 if tombstone is None else math.inf

    async def _ids_with(self, status: Status | None) -> Sequence[str]:
        if status is None:
            return await self._statuses.ids()
        if status in OPEN_STATUSES:
            inflight = read_inflight((await self._kv.recurse(INFLIGHT)).entries, self._invalid)
            return [i for i, entry in inflight.items() if entry.length > 0 and entry.status is status]
        return [
            i for i, completion in (await self._statuses.completed()).items() if completion.status is status
        ]
