"""Taking an ended execution out of Consul, for good."""

import json
import logging
from collections.abc import Sequence
from typing import Final

import anyio

from pyexec.adapters.consul.index import decode_status
from pyexec.adapters.consul.keys import (
    INFLIGHT,
    RETIRED,
    STATUS,
    bound_key,
    event_key,
    events_prefix,
    execution_prefix,
    idempotency_key,
    tombstone_key,
)
from pyexec.adapters.consul.kv import OPERATIONS_MAX, ConsulKV, Operation
from pyexec.codec import decode_event
from pyexec.domain.events import Terminal
from pyexec.errors import Conflict

logger = logging.getLogger(__name__)

TOMBSTONE_SECONDS: Final = 600.0
"""A first event may be under way to Consul for some seconds; nothing is for so long."""


class Retirement:
    """Removes executions, and in time the tombstones that keep them from coming back."""

    def __init__(self, kv: ConsulKV) -> None:
        self._kv = kv
        self._swept_at = anyio.current_time()
        self._seen: frozenset[str] = frozenset()

    async def retire(self, execution_id: str) -> None:
        """As `EventLog.retire` says."""
        if not await self._has_ended(execution_id):
            return
        inflight = f"{INFLIGHT}{execution_id}"
        operations = [
            Operation(verb="delete-tree", key=execution_prefix(execution_id)),
            Operation(verb="delete", key=f"{STATUS}{execution_id}"),
            Operation(verb="set", key=tombstone_key(execution_id), value=b""),
            # Made and removed, so that whoever watches what is open looks again.
            Operation(verb="set", key=inflight, value=b""),
            Operation(verb="delete", key=inflight),
        ]
        await self._kv.transaction([*operations, *await self._unbinding(execution_id)])
        await self._sweep()

    async def _unbinding(self, execution_id: str) -> Sequence[Operation]:
        """Frees the caller's idempotency key, if there is one."""
        _, bound = await self._kv.get(bound_key(execution_id))
        if bound is None:
            return []
        try:
            key_hash: str = json.loads(bound.value)["key_hash"]
        except (ValueError, KeyError, TypeError) as error:
            logger.error(
                "the idempotency key of %s stays bound, its note cannot be read: %r", execution_id, error
            )
            return []
        return [Operation(verb="delete", key=idempotency_key(key_hash))]

    async def _has_ended(self, execution_id: str) -> bool:
        """False when there is nothing to retire; raises `Conflict` while it is open."""
        keys = await self._kv.keys(events_prefix(execution_id))
        if not keys:
            await self._forget_status(execution_id)
            return False
        if not await self._is_completed(execution_id, keys[-1]):
            raise Conflict(f"{execution_id} has not ended; only what has ended can be retired")
        return True

    async def _is_completed(self, execution_id: str, last: str) -> bool:
        """By the index where it can be read, so that a log that cannot be read may go, too."""
        _, entry = await self._kv.get(f"{STATUS}{execution_id}")
        try:
            return entry is not None and decode_status(entry.value) is not None
        except ValueError:
            _, event = await self._kv.get(last)
            return event is not None and isinstance(decode_event(event.value), Terminal)

    async def _forget_status(self, execution_id: str) -> None:
        """An entry of the index without a log stands for nothing."""
        first = Operation(verb="check-not-exists", key=event_key(execution_id, 1))
        await self._kv.transaction([first, Operation(verb="delete", key=f"{STATUS}{execution_id}")])

    async def _sweep(self) -> None:
        """Removes the tombstones that were there at the last look already: no clocks are compared."""
        now = anyio.current_time()
        if now - self._swept_at < TOMBSTONE_SECONDS:
            return
        tombstones = await self._kv.keys(RETIRED)
        old = [key for key in tombstones if key in self._seen]
        for start in range(0, len(old), OPERATIONS_MAX):
            batch = old[start : start + OPERATIONS_MAX]
            await self._kv.transaction([Operation(verb="delete", key=key) for key in batch])
        self._swept_at, self._seen = now, frozenset(tombstones) - frozenset(old)
