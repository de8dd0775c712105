"""An append as one Consul transaction, and the causes for which Consul rolls it back."""

from collections.abc import Sequence
from typing import Self

from attrs import frozen

from pyexec.adapters.consul.kv import Operation, TransactionConflict, create
from pyexec.adapters.consul.schema import (
    INFLIGHT,
    STATUS,
    WEBHOOKS,
    InflightEntry,
    bound_key,
    encode_binding,
    encode_bound_key,
    encode_completion,
    encode_pending,
    event_key,
    idempotency_key,
    inbox_prefix,
    replica_key,
    tombstone_key,
)
from pyexec.codec import encode_event
from pyexec.domain.events import Event, Terminal
from pyexec.domain.execution import Phase
from pyexec.ports import IdempotencyKey, receiver_in


@frozen(kw_only=True)
class AppendRequest:
    """The arguments of one call of `EventLog.append`."""

    execution_id: str
    after: int
    events: Sequence[Event]
    key: IdempotencyKey | None = None
    notify: str | None = None
    fence: str | None = None

    def operations(self, before: InflightEntry) -> Sequence[Operation]:
        """Return the transaction. `before` is the index entry.

        Raises `Conflict` if events follow the end of the execution."""
        return [
            *self._preconditions(),
            *self._events(),
            *self._index(before),
            *self._side_effects(),
        ]

    def _preconditions(self) -> Sequence[Operation]:
        """Check that the log has `after` events and has not ended."""
        if self.after == 0:
            operations = [Operation(verb="check-not-exists", key=tombstone_key(self.execution_id))]
        else:
            operations = [
                Operation(verb="get", key=event_key(self.execution_id, self.after)),
                Operation(verb="get", key=f"{INFLIGHT}{self.execution_id}"),
            ]
        if self.fence is not None:
            operations.append(Operation(verb="check-not-exists", key=replica_key(self.fence)))
        return operations

    def _events(self) -> Sequence[Operation]:
        return [
            create(event_key(self.execution_id, seq), encode_event(event))
            for seq, event in enumerate(self.events, self.after + 1)
        ]

    def _index(self, before: InflightEntry) -> Sequence[Operation]:
        entry = InflightEntry(length=self.after, state=before.state, owner=before.owner)
        for event in self.events:
            entry.apply(event)
        first, last = self.events[0], self.events[-1]
        operations = index_operations(self.execution_id, entry, last)
        if self.after == 0 and entry.state != Phase.ENDED:
            pending = encode_pending(self.execution_id, first)
            operations.append(Operation(verb="set", key=f"{STATUS}{self.execution_id}", value=pending))
        return operations

    def _side_effects(self) -> Sequence[Operation]:
        """Bind the idempotency key, record an outstanding webhook, notify a replica, and empty the inbox of the fenced
        one."""
        operations = []
        if (receiver := receiver_in(self.after, self.events)) is not None:
            key = f"{WEBHOOKS}{self.execution_id}"
            operations.append(Operation(verb="set", key=key, value=receiver.encode()))
        if self.key is not None:
            operations += binding_operations(self.execution_id, self.key)
        if self.notify is not None:
            # The value must change: Consul ignores a write of the same value and wakes no watcher.
            length = str(self.after + len(self.events)).encode()
            key = f"{inbox_prefix(self.notify)}{self.execution_id}"
            operations.append(Operation(verb="set", key=key, value=length))
        if self.fence is not None:
            operations.append(Operation(verb="delete-tree", key=inbox_prefix(self.fence)))
        return operations


def index_operations(execution_id: str, entry: InflightEntry, last: Event) -> list[Operation]:
    """Return the operations that bring the index up to the last event."""
    if not isinstance(last, Terminal):
        return [Operation(verb="set", key=f"{INFLIGHT}{execution_id}", value=entry.encode())]
    completion = encode_completion(execution_id, entry.length, last)
    return [
        Operation(verb="delete", key=f"{INFLIGHT}{execution_id}"),
        Operation(verb="set", key=f"{STATUS}{execution_id}", value=completion),
    ]


def binding_operations(execution_id: str, key: IdempotencyKey) -> list[Operation]:
    """Return the operations that bind an idempotency key. The second key leads from the execution to the idempotency
    key, which `retire` needs."""
    return [
        create(idempotency_key(key.key_hash), encode_binding(execution_id, key)),
        Operation(verb="set", key=bound_key(execution_id), value=encode_bound_key(key)),
    ]


@frozen(kw_only=True)
class ConflictCause:
    """The checks that failed in a transaction that was rolled back."""

    session_lost: bool
    key_bound: bool
    only_index: bool
    """True if only the check of the index entry failed: the execution has ended, or its index entry is missing."""

    @classmethod
    def of(cls, request: AppendRequest, conflict: TransactionConflict) -> Self:
        failed = {(operation.verb, operation.key) for operation in conflict.failed_operations}
        binding = request.key and ("cas", idempotency_key(request.key.key_hash))
        return cls(
            session_lost=any(verb == "check-session" for verb, _ in failed),
            key_bound=binding in failed,
            only_index=failed == {("get", f"{INFLIGHT}{request.execution_id}")},
        )
