"""Retention in Consul: finding executions that ended long ago, and deleting them."""

import logging
from collections.abc import Sequence
from datetime import datetime
from itertools import islice
from math import inf
from typing import Final

import anyio

from pyexec.adapters.consul.index import InvalidKeyReporter, read_completions
from pyexec.adapters.consul.kv import OPERATIONS_MAX, ConsulKV, Operation
from pyexec.adapters.consul.schema import (
    INFLIGHT,
    RETIRED,
    STATUS,
    WEBHOOKS,
    Completion,
    bound_key,
    decode_bound_key,
    decode_status,
    event_key,
    events_prefix,
    execution_prefix,
    idempotency_key,
    tombstone_key,
)
from pyexec.codec import decode_event, timestamp
from pyexec.domain.events import Terminal
from pyexec.domain.ids import created_ms, id_prefix, is_execution_id, is_session_id
from pyexec.errors import Conflict

logger = logging.getLogger(__name__)

BUCKET_BITS: Final = 16
"""A bucket holds the ids created within 2**16 ms, about a minute. They share a prefix, and are listed together."""
BUCKETS_MAX: Final = 60
FULL_SCAN_SECONDS: Final = 600.0
TOMBSTONE_SECONDS: Final = 600.0
"""Much longer than a first append can be delayed on its way to Consul."""


class EndedScanner:
    """Finds executions by the time of their end, at a cost that does not grow with the history.

    An execution that ended before a moment was created before it, and ids sort by creation. So a scan lists only
    the buckets since the last scan, and reads the status of executions that were still open then. A full scan
    every ten minutes finds executions whose first event came long after their id."""

    def __init__(self, kv: ConsulKV, invalid: InvalidKeyReporter) -> None:
        self._kv = kv
        self._invalid = invalid
        self._scanned: dict[str, Completion | None] = {}
        self._bucket = 0
        self._full_scan_at = -inf

    async def list_ended(self, before: datetime, limit: int, undelivered_before: datetime) -> Sequence[str]:
        """Return at most `limit` executions that ended before `before`, the earliest end first; of those with an
        outstanding webhook, only those that ended before `undelivered_before`."""
        await self._scan(_bucket(round(before.timestamp() * 1000)))
        await self._read_completions()
        until = timestamp(before)
        ended = [
            (completion.finished_at, execution_id)
            for execution_id, completion in self._scanned.items()
            if completion is not None and completion.finished_at < until
        ]
        undelivered, latest = await self._undelivered() if ended else set(), timestamp(undelivered_before)
        kept = (each for each in sorted(ended) if each[0] < latest or each[1] not in undelivered)
        return [execution_id for _, execution_id in islice(kept, limit)]

    async def _undelivered(self) -> set[str]:
        return {key.removeprefix(WEBHOOKS) for key in await self._kv.keys(WEBHOOKS)}

    def forget(self, execution_id: str) -> None:
        """Drop a retired execution."""
        self._scanned.pop(execution_id, None)

    async def _scan(self, last: int) -> None:
        """Add the executions of all buckets up to `last`."""
        now = anyio.current_time()
        if now - self._full_scan_at >= FULL_SCAN_SECONDS or last - self._bucket > BUCKETS_MAX:
            ids = [i for i in await self._ids("") if _bucket(created_ms(i)) <= last]
            self._scanned = {execution_id: self._scanned.get(execution_id) for execution_id in ids}
            self._bucket, self._full_scan_at = last, now
            return
        # Executions may have been added to the last bucket, and to the one before it, since the last scan.
        for bucket in range(self._bucket - 1, last + 1):
            for execution_id in await self._ids(id_prefix(bucket << BUCKET_BITS, BUCKET_BITS)):
                self._scanned.setdefault(execution_id, None)
            self._bucket = max(self._bucket, bucket)

    async def _ids(self, prefix: str) -> Sequence[str]:
        ids = [key.removeprefix(STATUS) for key in await self._kv.keys(f"{STATUS}{prefix}")]
        return [execution_id for execution_id in ids if is_execution_id(execution_id)]

    async def _read_completions(self) -> None:
        """Read the status of executions that had not ended, and drop those that are retired."""
        still_open = [
            execution_id for execution_id, completion in self._scanned.items() if completion is None
        ]
        found = await read_completions(self._kv, self._invalid, still_open)
        for execution_id in still_open:
            if execution_id in found:
                self._scanned[execution_id] = found[execution_id]
            else:
                del self._scanned[execution_id]


def _is_id(name: str) -> bool:
    return is_execution_id(name) or is_session_id(name)


def _bucket(milliseconds: int) -> int:
    return milliseconds >> BUCKET_BITS


class Retirement:
    """Deletes ended executions. A tombstone keeps a delayed first append from creating one again."""

    def __init__(self, kv: ConsulKV) -> None:
        self._kv = kv
        self._swept_at = anyio.current_time()
        self._tombstones: frozenset[str] = frozenset()

    async def retire(self, execution_id: str) -> None:
        """Implement `EventLog.retire`."""
        if not await self._has_ended(execution_id):
            return
        inflight = f"{INFLIGHT}{execution_id}"
        operations = [
            Operation(verb="delete-tree", key=execution_prefix(execution_id)),
            Operation(verb="delete", key=f"{STATUS}{execution_id}"),
            Operation(verb="delete", key=f"{WEBHOOKS}{execution_id}"),
            Operation(verb="set", key=tombstone_key(execution_id), value=b""),
            # Created and deleted, to wake the watch of open executions and with it all waiters.
            Operation(verb="set", key=inflight, value=b""),
            Operation(verb="delete", key=inflight),
        ]
        await self._kv.transaction([*operations, *await self._unbind(execution_id)])
        await self._sweep_tombstones()

    async def _unbind(self, execution_id: str) -> Sequence[Operation]:
        """Return the operations that free the idempotency key, if one is bound."""
        _, bound = await self._kv.get(bound_key(execution_id))
        if bound is None:
            return []
        try:
            key = decode_bound_key(bound.value)
        except ValueError as error:
            logger.error(
                "idempotency key of %s stays bound: %s is invalid: %s", execution_id, bound.key, error
            )
            return []
        return [Operation(verb="delete", key=idempotency_key(key.key_hash))]

    async def _has_ended(self, execution_id: str) -> bool:
        """Return False if the execution does not exist. Raises `Conflict` if it is open."""
        keys = await self._kv.keys(events_prefix(execution_id))
        if not keys:
            await self._delete_status(execution_id)
            return False
        if not await self._is_completed(execution_id, keys[-1]):
            raise Conflict(f"{execution_id} has not ended; only ended executions can be retired")
        return True

    async def _is_completed(self, execution_id: str, last_key: str) -> bool:
        """Return True if the execution has ended. The index is read first, so that a corrupt log can be retired."""
        _, entry = await self._kv.get(f"{STATUS}{execution_id}")
        try:
            return entry is not None and decode_status(entry.value) is not None
        except ValueError:
            _, event = await self._kv.get(last_key)
            return event is not None and isinstance(decode_event(event.value), Terminal)

    async def _delete_status(self, execution_id: str) -> None:
        """Delete the status entry of an execution that has no events."""
        no_events = Operation(verb="check-not-exists", key=event_key(execution_id, 1))
        await self._kv.transaction([no_events, Operation(verb="delete", key=f"{STATUS}{execution_id}")])

    async def _sweep_tombstones(self) -> None:
        """Delete tombstones that the last sweep has seen already, so that no clocks are compared."""
        now = anyio.current_time()
        if now - self._swept_at < TOMBSTONE_SECONDS:
            return
        keys = await self._kv.keys(RETIRED)
        tombstones = [key for key in keys if _is_id(key.removeprefix(RETIRED))]
        old = [key for key in tombstones if key in self._tombstones]
        for start in range(0, len(old), OPERATIONS_MAX):
            batch = old[start : start + OPERATIONS_MAX]
            await self._kv.transaction([Operation(verb="delete", key=key) for key in batch])
        self._swept_at, self._tombstones = now, frozenset(tombstones) - frozenset(old)
