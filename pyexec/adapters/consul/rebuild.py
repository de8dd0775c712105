"""Rebuild of the index in Consul from the events, while the log is in use.

Correct entries are only read: a write would cost every Consul server, and wake all watchers."""

import logging
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Final

from pyexec.adapters.consul.append import index_operations
from pyexec.adapters.consul.index import InvalidKeyReporter, open_executions
from pyexec.adapters.consul.kv import OPERATIONS_MAX, ConsulKV, Operation, TransactionConflict
from pyexec.adapters.consul.schema import (
    EXECUTIONS,
    INFLIGHT,
    STATUS,
    InflightEntry,
    bound_key,
    decode_bound_key,
    encode_binding,
    encode_pending,
    event_key,
    events_prefix,
    idempotency_key,
)
from pyexec.codec import decode_event
from pyexec.domain.events import Event
from pyexec.domain.execution import Phase
from pyexec.domain.ids import is_execution_id
from pyexec.errors import Conflict, CorruptLog

logger = logging.getLogger(__name__)

ATTEMPTS: Final = 10
READS_PER_EXECUTION: Final = 4

Snapshot = Mapping[str, bytes]
"""The values that one transaction has read, by key."""


async def rebuild_index(kv: ConsulKV, invalid: InvalidKeyReporter) -> Mapping[str, CorruptLog]:
    """Implement `EventLog.rebuild_index`."""
    unreadable: dict[str, CorruptLog] = {}
    existing = {key.split("/")[1] for key in await kv.keys(EXECUTIONS) if "/events/" in key}
    remaining = iter(sorted(filter(is_execution_id, existing)))
    while batch := list(islice(remaining, OPERATIONS_MAX // READS_PER_EXECUTION)):
        snapshot = await _read(kv, batch)
        for execution_id in batch:
            try:
                await _rebuild(kv, execution_id, snapshot)
            except TransactionConflict as conflict:
                logger.warning("index of %s not checked: it keeps changing: %s", execution_id, conflict)
            except (CorruptLog, Conflict) as error:
                unreadable[execution_id] = CorruptLog(str(error))
    await _remove_orphans(kv, existing, invalid)
    return unreadable


async def _read(kv: ConsulKV, ids: Sequence[str]) -> Snapshot:
    """Read the events of these executions, and their index entries."""
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
    # `get` fails the transaction for a key that does not exist; `get-tree` returns nothing for it.
    entries = await kv.transaction([Operation(verb="get-tree", key=key) for key in keys])
    return {entry.key: entry.value for entry in entries}


async def _rebuild(kv: ConsulKV, execution_id: str, snapshot: Snapshot) -> None:
    """Correct the index entries of one execution.

    Raises `CorruptLog` if its log cannot be read, `TransactionConflict` if it changes during each attempt."""
    for attempt in range(1, ATTEMPTS + 1):
        events = _events(execution_id, snapshot)
        if not events:
            return  # retired meanwhile
        operations = [*_index(execution_id, events), *await _binding(kv, execution_id, snapshot)]
        if not any(_changes(operation, snapshot) for operation in operations):
            return
        try:
            await kv.transaction(operations)
        except TransactionConflict:
            if attempt == ATTEMPTS:
                raise
            snapshot = await _read(kv, [execution_id])
        else:
            return


def _events(execution_id: str, snapshot: Snapshot) -> Sequence[Event]:
    """Return the events. Raises `CorruptLog` if they cannot be read."""
    prefix = events_prefix(execution_id)
    keys = sorted(key for key in snapshot if key.startswith(prefix))
    if keys != [event_key(execution_id, seq) for seq in range(1, len(keys) + 1)]:
        raise CorruptLog(f"{execution_id}: the keys of its events are not numbered without a gap")
    return [decode_event(snapshot[key]) for key in keys]


def _index(execution_id: str, events: Sequence[Event]) -> Sequence[Operation]:
    """Return the operations that set the index, if the log still has these events."""
    entry = InflightEntry()
    for event in events:
        entry.apply(event)
    operations = [
        Operation(verb="get", key=event_key(execution_id, len(events))),
        Operation(verb="check-not-exists", key=event_key(execution_id, len(events) + 1)),
        *index_operations(execution_id, entry, events[-1]),
    ]
    if entry.state != Phase.ENDED:
        pending = encode_pending(execution_id, events[0])
        operations.append(Operation(verb="set", key=f"{STATUS}{execution_id}", value=pending))
    return operations


def _changes(operation: Operation, snapshot: Snapshot) -> bool:
    """Return True if the operation would change the store."""
    match operation.verb:
        case "set":
            return snapshot.get(operation.key) != operation.value
        case "delete":
            return operation.key in snapshot
    return False


async def _binding(kv: ConsulKV, execution_id: str, snapshot: Snapshot) -> Sequence[Operation]:
    """Return the operation that binds the idempotency key, unless it is bound correctly."""
    bound = snapshot.get(bound_key(execution_id))
    if bound is None:
        return []
    try:
        key = decode_bound_key(bound)
    except ValueError as error:
        raise CorruptLog(f"{bound_key(execution_id)} names no idempotency key: {error}") from error
    name, value = idempotency_key(key.key_hash), encode_binding(execution_id, key)
    _, entry = await kv.get(name)
    correct = entry is not None and entry.value == value
    return [] if correct else [Operation(verb="set", key=name, value=value)]


async def _remove_orphans(kv: ConsulKV, existing: set[str], invalid: InvalidKeyReporter) -> None:
    """Delete index entries of executions that have no events. Uploads have none yet and are kept."""
    open_ids = open_executions(await kv.recurse(INFLIGHT), invalid).lengths.keys()
    listed = {key.removeprefix(STATUS) for key in await kv.keys(STATUS)}
    for execution_id in filter(is_execution_id, (open_ids | listed) - existing):
        operations = [Operation(verb="check-not-exists", key=event_key(execution_id, 1))]
        operations.append(Operation(verb="delete", key=f"{STATUS}{execution_id}"))
        if execution_id in open_ids:
            operations.append(Operation(verb="delete", key=f"{INFLIGHT}{execution_id}"))
        try:
            await kv.transaction(operations)
        except TransactionConflict:
            continue  # its first event has been written meanwhile
