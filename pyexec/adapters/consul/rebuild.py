"""Makes the index in Consul anew from the events while the log is in use. What is right already is only read: a write
would cost every server of the store, and wake whoever watches."""

import json
import logging
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Final

from pyexec.adapters.consul.append import index_operations
from pyexec.adapters.consul.index import UPLOADING, Complaints, Inflight, pending_entry, read_inflight
from pyexec.adapters.consul.keys import (
    EXECUTIONS,
    INFLIGHT,
    STATUS,
    bound_key,
    event_key,
    events_prefix,
    idempotency_key,
)
from pyexec.adapters.consul.kv import OPERATIONS_MAX, ConsulKV, Operation, TransactionLost
from pyexec.codec import decode_event
from pyexec.domain.events import Event
from pyexec.domain.execution import Phase
from pyexec.domain.ids import is_execution_id
from pyexec.errors import Conflict, CorruptLog

logger = logging.getLogger(__name__)

TRIES: Final = 10
READS_EACH: Final = 4

Found = Mapping[str, bytes]
"""What was read, by the keys."""


async def rebuild_index(kv: ConsulKV, complaints: Complaints) -> Mapping[str, CorruptLog]:
    """As `EventLog.rebuild_index` says."""
    unreadable: dict[str, CorruptLog] = {}
    begun = {key.split("/")[1] for key in await kv.keys(EXECUTIONS) if "/events/" in key}
    left = iter(sorted(filter(is_execution_id, begun)))
    while batch := list(islice(left, OPERATIONS_MAX // READS_EACH)):
        found = await _read(kv, batch)
        for execution_id in batch:
            try:
                await _rebuild(kv, execution_id, found)
            except TransactionLost as lost:
                logger.warning("the index of %s is not checked, it is never at rest: %s", execution_id, lost)
            except (CorruptLog, Conflict) as error:
                unreadable[execution_id] = CorruptLog(str(error))
    await _remove_unfounded(kv, begun, complaints)
    return unreadable


async def _read(kv: ConsulKV, ids: Sequence[str]) -> Found:
    """The events of these executions, and what the index says of them."""
    keys = [
        key
        for execution_id in ids
        for key in (
            events_prefix(execution_id),
            bound_key(execution_id),
            f"{STATUS}{execution_id}",
            f"{INFLIGHT}{execution_id}",
        )
    ]
    # As trees, what is not there is no error.
    entries = await kv.transaction([Operation(verb="get-tree", key=key) for key in keys])
    return {entry.key: entry.value for entry in entries}


async def _rebuild(kv: ConsulKV, execution_id: str, found: Found) -> None:
    """Raises `CorruptLog` for a log that cannot be read, and `Conflict` when it is never at rest."""
    for attempt in range(1, TRIES + 1):
        events = _events(execution_id, found)
        if not events:
            return  # it was retired meanwhile
        operations = [*_operations(execution_id, events), *await _binding(kv, execution_id, found)]
        if not any(_changes(operation, found) for operation in operations):
            return
        try:
            await kv.transaction(operations)
        except TransactionLost:
            if attempt == TRIES:
                raise
            found = await _read(kv, [execution_id])
        else:
            return


def _events(execution_id: str, found: Found) -> Sequence[Event]:
    """The log; raises `CorruptLog` when it cannot be read."""
    prefix = events_prefix(execution_id)
    keys = sorted(key for key in found if key.startswith(prefix))
    if keys != [event_key(execution_id, seq) for seq in range(1, len(keys) + 1)]:
        raise CorruptLog(f"{execution_id}: an event is missing, or a key stands there that is none")
    return [decode_event(found[key]) for key in keys]


def _operations(execution_id: str, events: Sequence[Event]) -> Sequence[Operation]:
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


def _changes(operation: Operation, found: Found) -> bool:
    """Whether it would leave the store other than it was found."""
    match operation.verb:
        case "set":
            return found.get(operation.key) != operation.value
        case "delete":
            return operation.key in found
    return False


async def _binding(kv: ConsulKV, execution_id: str, found: Found) -> Sequence[Operation]:
    """Sets what the caller's idempotency key stands for, unless it is right, from the note of it with the execution."""
    bound = found.get(bound_key(execution_id))
    if bound is None:
        return []
    try:
        note = json.loads(bound)
        key, fingerprint = idempotency_key(note["key_hash"]), note["fingerprint"]
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptLog(f"{bound_key(execution_id)} is no note of a key: {error!r}") from error
    value = json.dumps({"execution_id": execution_id, "fingerprint": fingerprint}).encode()
    _, entry = await kv.get(key)
    right = entry is not None and entry.value == value
    return [] if right else [Operation(verb="set", key=key, value=value)]


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
