"""What one append does in Consul, as the operations of one transaction, and what a refusal of it means."""

import json
from collections.abc import Sequence
from typing import Self

from attrs import frozen

from pyexec.adapters.consul.index import Inflight, completion_entry, pending_entry
from pyexec.adapters.consul.keys import (
    INFLIGHT,
    STATUS,
    bound_key,
    event_key,
    idempotency_key,
    inbox_prefix,
    replica_key,
    tombstone_key,
)
from pyexec.adapters.consul.kv import Operation, TransactionLost, create
from pyexec.codec import encode_event
from pyexec.domain.events import Event, Terminal
from pyexec.domain.execution import Phase
from pyexec.ports import IdempotencyKey


@frozen(kw_only=True)
class Append:
    """One call of `EventLog.append`."""

    execution_id: str
    after: int
    events: Sequence[Event]
    key: IdempotencyKey | None = None
    notify: str | None = None
    fence: str | None = None

    def operations(self, fence: Operation, before: Inflight) -> Sequence[Operation]:
        """The transaction; `before` is what the index says of the execution, as far as the events need it.

        Raises `Conflict` when something follows the end."""
        return [fence, *self._conditions(), *self._events(), *self._index(before), *self._for_others()]

    def _conditions(self) -> Sequence[Operation]:
        """The log is as long as the caller believes, and has not ended."""
        if self.after == 0:
            conditions = [Operation(verb="check-not-exists", key=tombstone_key(self.execution_id))]
        else:
            conditions = [
                Operation(verb="get", key=event_key(self.execution_id, self.after)),
                Operation(verb="get", key=f"{INFLIGHT}{self.execution_id}"),
            ]
        if self.fence is not None:
            conditions.append(Operation(verb="check-not-exists", key=replica_key(self.fence)))
        return conditions

    def _events(self) -> Sequence[Operation]:
        return [
            create(event_key(self.execution_id, seq), encode_event(event))
            for seq, event in enumerate(self.events, self.after + 1)
        ]

    def _index(self, before: Inflight) -> Sequence[Operation]:
        entry = Inflight(length=self.after, state=before.state, owner=before.owner)
        for event in self.events:
            entry.note(event)
        first, last = self.events[0], self.events[-1]
        operations = index_operations(self.execution_id, entry, last)
        if self.after == 0 and entry.state != Phase.ENDED:
            pending = pending_entry(self.execution_id, first)
            operations.append(Operation(verb="set", key=f"{STATUS}{self.execution_id}", value=pending))
        return operations

    def _for_others(self) -> Sequence[Operation]:
        operations = []
        if self.key is not None:
            operations += key_operations(self.execution_id, self.key)
        if self.notify is not None:
            # Not the same as before: Consul takes that for no change, and wakes nobody.
            length = str(self.after + len(self.events)).encode()
            key = f"{inbox_prefix(self.notify)}{self.execution_id}"
            operations.append(Operation(verb="set", key=key, value=length))
        if self.fence is not None:
            operations.append(Operation(verb="delete-tree", key=inbox_prefix(self.fence)))
        return operations


def index_operations(execution_id: str, entry: Inflight, last: Event) -> list[Operation]:
    """Brings the index to where the log is."""
    if not isinstance(last, Terminal):
        return [Operation(verb="set", key=f"{INFLIGHT}{execution_id}", value=entry.encode())]
    completion = completion_entry(execution_id, entry.length, last)
    return [
        Operation(verb="delete", key=f"{INFLIGHT}{execution_id}"),
        Operation(verb="set", key=f"{STATUS}{execution_id}", value=completion),
    ]


def key_operations(execution_id: str, key: IdempotencyKey) -> list[Operation]:
    """Binds a caller's key, and notes it with the execution, which takes it along when it goes."""
    bound = {"execution_id": execution_id, "fingerprint": key.fingerprint}
    note = {"key_hash": key.key_hash, "fingerprint": key.fingerprint}
    return [
        create(idempotency_key(key.key_hash), json.dumps(bound).encode()),
        Operation(verb="set", key=bound_key(execution_id), value=json.dumps(note).encode()),
    ]


@frozen(kw_only=True)
class Refusal:
    """Why a transaction was refused, by what its operations were for."""

    session: bool
    key: bool
    not_open: bool
    """Only the index says that the execution is not open: it has ended, or the index is damaged."""

    @classmethod
    def of(cls, append: Append, operations: Sequence[Operation], lost: TransactionLost) -> Self:
        failed = {(operations[at].verb, operations[at].key) for at in lost.failed}
        bound = append.key and ("cas", idempotency_key(append.key.key_hash))
        guard = ("get", f"{INFLIGHT}{append.execution_id}")
        return cls(
            session=any(verb == "check-session" for verb, _ in failed),
            key=bound in failed,
            not_open=failed == {guard},
        )
