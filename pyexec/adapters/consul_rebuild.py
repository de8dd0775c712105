"""Makes the index in Consul anew from the events, one execution at a time, while the log is in use."""

import json
import logging
from collections.abc import Sequence
from typing import Final

from pyexec.adapters.consul_append import index_operations
from pyexec.adapters.consul_index import UPLOADING, Complaints, Inflight, pending_entry, read_inflight
from pyexec.adapters.consul_keys import (
    EXECUTIONS,
    INFLIGHT,
    STATUS,
    bound_key,
    event_key,
    events_prefix,
    idempotency_key,
)
from pyexec.adapters.consul_kv import ConsulKV, Operation, TransactionLost
from pyexec.codec import decode_event
from pyexec.domain.events import Event
from pyexec.domain.execution import Phase
from pyexec.domain.ids import is_execution_id
from pyexec.errors import Conflict, CorruptLog

logger = logging.getLogger(__name__)

TRIES: Final = 10


async def rebuild_index(kv: ConsulKV, complaints: Complaints) -> None:
    """An execution whose log cannot be read keeps the index that it has, and is named in a log line."""
    begun = {key.split("/")[1] for key in await kv.keys(EXECUTIONS) if "/events/" in key}
    for execution_id in sorted(filter(is_execution_id, begun)):
        try:
            await _rebuild(kv, execution_id)
        except (CorruptLog, Conflict) as error:
            logger.error("the index of %s is left as it is: %s", execution_id, error)
    await _remove_unfounded(kv, begun, complaints)


async def _rebuild(kv: ConsulKV, execution_id: str) -> None:
    """Raises `CorruptLog` for a log that cannot be read, and `Conflict` when it is never at rest."""
    for attempt in range(1, TRIES + 1):
        listing = await kv.recurse(events_prefix(execution_id))
        events = [decode_event(entry.value) for entry in listing.entries]
        if not events:
            return  # it was retired meanwhile
        numbers = [event_key(execution_id, seq) for seq in range(1, len(events) + 1)]
        if [entry.key for entry in listing.entries] != numbers:
            raise CorruptLog(f"{execution_id}: an event is missing")
        try:
            await kv.transaction(_operations(execution_id, events) + await _binding(kv, execution_id))
        except TransactionLost:
            if attempt == TRIES:
                raise
        else:
            return


def _operations(execution_id: str, events: Sequence[Event]) -> list[Operation]:
    """Sets the index, if the log is still what it was read to be."""
    entry = Inflight()
    for event in events:
        entry.note(event)
    operations = [
        Operation(verb="get", key=event_key(execution_id, len(events))),
        Operation(verb="check-not-exists", key=event_key(execution_id, len(events) + 1)),
        *index_operations(execution_id, entry, events[-1]),
    ]
    if entry.state != Phase.ENDED:
        pending = pending_entry(execution_id, events[0])
        operations.append(Operation(verb="set", key=f"{STATUS}{execution_id}", value=pending))
    return operations


async def _binding(kv: ConsulKV, execution_id: str) -> list[Operation]:
    """Sets what the caller's idempotency key stands for, from the note of it with the execution."""
    _, bound = await kv.get(bound_key(execution_id))
    if bound is None:
        return []
    try:
        note = json.loads(bound.value)
        key_hash, fingerprint = note["key_hash"], note["fingerprint"]
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptLog(f"{bound.key} is no note of a key: {error!r}") from error
    value = json.dumps({"execution_id": execution_id, "fingerprint": fingerprint}).encode()
    return [Operation(verb="set", key=idempotency_key(key_hash), value=value)]


async def _remove_unfounded(kv: ConsulKV, begun: set[str], complaints: Complaints) -> None:
    """Takes out of the index what no event speaks for; uploads have none yet."""
    inflight = read_inflight((await kv.recurse(INFLIGHT)).entries, complaints)
    open_ids = {execution_id for execution_id, entry in inflight.items() if entry.state != UPLOADING}
    shown = {key.removeprefix(STATUS) for key in await kv.keys(STATUS)}
    for execution_id in filter(is_execution_id, (open_ids | shown) - begun):
        operations = [Operation(verb="check-not-exists", key=event_key(execution_id, 1))]
        operations.append(Operation(verb="delete", key=f"{STATUS}{execution_id}"))
        if execution_id in open_ids:
            operations.append(Operation(verb="delete", key=f"{INFLIGHT}{execution_id}"))
        try:
            await kv.transaction(operations)
        except TransactionLost:
            continue  # it has begun meanwhile
