"""The event log in Consul's keys, which all replicas of a deployment share."""

import json
import logging
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final

import anyio

from pyexec.adapters.consul.append import Append, Refusal
from pyexec.adapters.consul.due import Due
from pyexec.adapters.consul.http import Unanswered
from pyexec.adapters.consul.index import Complaints, Inflight, StatusIndex, read_inflight
from pyexec.adapters.consul.keys import (
    INFLIGHT,
    LEADER,
    event_key,
    events_prefix,
    idempotency_key,
    inbox_prefix,
    tombstone_key,
)
from pyexec.adapters.consul.kv import ConsulKV, Operation, TransactionLost
from pyexec.adapters.consul.rebuild import rebuild_index
from pyexec.adapters.consul.retire import Retirement
from pyexec.adapters.consul.watch import InflightWatch, open_lengths
from pyexec.codec import decode_event
from pyexec.domain.events import Event, KillRequested, Terminal
from pyexec.domain.execution import OPEN_STATUSES, Status
from pyexec.domain.ids import is_execution_id
from pyexec.errors import Conflict, ConsulSessionLost, CorruptLog, InvalidRequest, KeyTaken, Unavailable
from pyexec.ports import IdempotencyKey, Inbox, OpenExecutions, Page

logger = logging.getLogger(__name__)

APPEND_SECONDS: Final = 5.0
"""How long an append whose outcome is unknown is tried again before its caller is told so."""
RESEND_SECONDS: Final = 0.2


class ConsulLog:
    """`ports.EventLog` on Consul. `open` it as a context manager: its watch runs inside.

    `fence` gives the operation that makes a transaction void once this replica was taken for dead; `complaints`
    are shared with whoever else reads the same keys."""

    def __init__(self, kv: ConsulKV, fence: Callable[[], Operation], complaints: Complaints) -> None:
        self._kv = kv
        self._fence = fence
        self._complaints = complaints
        self._watch = InflightWatch(kv, self._complaints)
        self._statuses = StatusIndex(kv, self._complaints)
        self._due = Due(kv, self._complaints)
        self._retirement = Retirement(kv)

    @classmethod
    @asynccontextmanager
    async def open(
        cls, kv: ConsulKV, fence: Callable[[], Operation], complaints: Complaints | None = None
    ) -> AsyncIterator["ConsulLog"]:
        """The log under the prefix of `kv`."""
        log = cls(kv, fence, complaints or Complaints())
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
        if not events:
            raise ValueError("an append needs events")
        if key is not None and after != 0:
            raise ValueError("a key is bound together with the first event only")
        append = Append(
            execution_id=execution_id, after=after, events=events, key=key, notify=notify, fence=fence
        )
        before = await self._before(append)
        give_up_at = anyio.current_time() + APPEND_SECONDS
        sent = False
        while True:
            operations = append.operations(self._fence_after(sent), before)
            try:
                await self._kv.transaction(operations)
            except Unanswered as error:
                # It may have been written, or be written yet. The same again cannot be written twice.
                if anyio.current_time() >= give_up_at:
                    raise
                logger.warning("%s: an append is sent again: %s", execution_id, error)
                sent = True
                await anyio.sleep(RESEND_SECONDS)
            except TransactionLost as lost:
                if sent and await self._is_written(append):
                    return
                before = await self._explained(append, Refusal.of(append, operations, lost), lost)
            else:
                return

    async def read(self, execution_id: str, after: int = 0) -> Sequence[Event]:
        prefix = events_prefix(execution_id)
        listing = await self._kv.recurse(prefix)
        for expected, entry in enumerate(listing.entries, 1):
            if entry.key != event_key(execution_id, expected):
                raise CorruptLog(f"{execution_id}: {entry.key} stands where event {expected} should be")
        return [decode_event(entry.value) for entry in listing.entries[after:]]

    async def wait(self, execution_id: str, after: int) -> None:
        was_open = -1
        with self._watch.waiting(execution_id) as waiter:
            while True:
                news = waiter.news
                self._watch.check()
                length: float | None = self._watch.lengths.get(execution_id)
                if length is not None:
                    was_open = int(length)
                elif was_open >= after:
                    return  # it has ended since, so there is one more event at least
                else:
                    length = await self._length(execution_id)
                if length > after:
                    return
                await news.wait()

    async def open_executions(self, since: int | None = None) -> OpenExecutions:
        if since is None:
            listing = await self._kv.recurse(INFLIGHT)
            self._watch.take(listing)
            lengths = open_lengths(listing, self._complaints)
            return OpenExecutions(version=listing.index, lengths=lengths)
        await self._watch.changed_since(since)
        return OpenExecutions(version=self._watch.index, lengths=self._watch.lengths)

    async def inbox(self, replica: str, since: int | None = None) -> Inbox:
        folder = inbox_prefix(replica)
        listing = await self._kv.recurse(folder, since)
        if all(entry.key != folder for entry in listing.entries):
            # A folder with a member in it is woken by its members only, an empty one by every write.
            await self._kv.put(folder, b"", session=self._fence().session)
        told = {entry.key.removeprefix(folder): entry.index for entry in listing.entries}
        return Inbox(version=listing.index, told={i: told[i] for i in filter(is_execution_id, told)})

    async def acknowledge(self, replica: str, execution_id: str, number: int) -> None:
        await self._kv.delete(f"{inbox_prefix(replica)}{execution_id}", index=number)

    async def page(self, *, status: Status | None, limit: int, cursor: str | None) -> Page:
        if cursor is not None and not is_execution_id(cursor):
            raise InvalidRequest("cursor must be the next_cursor of an earlier answer", field="cursor")
        wanted = sorted(await self._of_status(status), reverse=True)
        ids = [execution_id for execution_id in wanted if cursor is None or execution_id < cursor]
        return Page(ids=ids[:limit], next_cursor=ids[limit - 1] if len(ids) > limit else None)

    async def ended_before(self, moment: datetime, limit: int) -> Sequence[str]:
        return await self._due.before(moment, limit)

    async def key_owner(self, key_hash: str) -> tuple[str, str] | None:
        _, entry = await self._kv.get(idempotency_key(key_hash))
        if entry is None:
            return None
        try:
            bound = json.loads(entry.value)
            return bound["execution_id"], bound["fingerprint"]
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptLog(f"the key {entry.key} holds no binding of ours: {error!r}") from error

    async def retire(self, execution_id: str) -> None:
        await self._retirement.retire(execution_id)
        self._due.forget(execution_id)

    async def check(self) -> None:
        await self._kv.get(LEADER)

    async def rebuild_index(self) -> Mapping[str, CorruptLog]:
        return await rebuild_index(self._kv, self._complaints)

    async def _before(self, append: Append) -> Inflight:
        """What the index says of the execution: asked only where the events do not tell by themselves."""
        if append.after == 0 or not isinstance(append.events[0], KillRequested):
            return Inflight(owner=self._own_name())
        _, entry = await self._kv.get(f"{INFLIGHT}{append.execution_id}")
        found = read_inflight([entry] if entry else [], self._complaints)
        return found.get(append.execution_id, Inflight())

    def _fence_after(self, sent: bool) -> Operation:
        """The fence. Once something was sent, a lost session does not say that nothing was written."""
        try:
            return self._fence()
        except ConsulSessionLost as error:
            if sent:
                raise Unavailable(f"it is not known whether it was written: {error}") from error
            raise

    def _own_name(self) -> str:
        """Whoever goes on with what was claimed is its owner."""
        return self._fence().key.rpartition("/")[2]

    async def _is_written(self, append: Append) -> bool:
        """Whether the event that stands in the append's place is its own, by the nonce."""
        _, entry = await self._kv.get(event_key(append.execution_id, append.after + 1))
        return entry is not None and decode_event(entry.value).nonce == append.events[0].nonce

    async def _explained(self, append: Append, refusal: Refusal, lost: TransactionLost) -> Inflight:
        """Raises what the refusal means to the caller; returns when the append may be sent again, because only
        the index was wrong, and is mended now."""
        execution_id = append.execution_id
        if refusal.key and append.key is not None:
            owner = await self.key_owner(append.key.key_hash)
            if owner is not None and owner[0] != execution_id:
                raise KeyTaken(*owner) from lost
        if refusal.session:
            raise ConsulSessionLost(str(lost)) from lost
        if refusal.not_open:
            return await self._mended(append, lost)
        raise Conflict(f"{execution_id} has moved on from event {append.after}: {lost}") from lost

    async def _mended(self, append: Append, lost: TransactionLost) -> Inflight:
        """Puts an open execution back into the index that has lost it."""
        events = await self.read(append.execution_id)
        if len(events) != append.after or isinstance(events[-1], Terminal):
            raise Conflict(f"{append.execution_id} has ended: {lost}") from lost
        entry = Inflight()
        for event in events:
            entry.note(event)
        logger.error("%s is open and was not in the index; it is put back", append.execution_id)
        await self._kv.put(f"{INFLIGHT}{append.execution_id}", entry.encode(), index=0)
        return entry

    async def _length(self, execution_id: str) -> float:
        """How many events there are; a retired log counts as longer than any."""
        keys = await self._kv.keys(events_prefix(execution_id))
        if keys:
            return len(keys)
        _, retired = await self._kv.get(tombstone_key(execution_id))
        return 0 if retired is None else math.inf

    async def _of_status(self, status: Status | None) -> Sequence[str]:
        if status is None:
            return await self._statuses.ids()
        if status in OPEN_STATUSES:
            inflight = read_inflight((await self._kv.recurse(INFLIGHT)).entries, self._complaints)
            return [i for i, entry in inflight.items() if entry.length > 0 and entry.status is status]
        return [i for i, end in (await self._statuses.ended()).items() if end.status is status]
