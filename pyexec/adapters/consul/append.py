"""An append as one Consul transaction: its operations, its commit although answers can be lost, and the causes for
which Consul rolls it back."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Self

import anyio
from attrs import define, field, frozen

from pyexec.adapters.consul.http import OutcomeUnknown
from pyexec.adapters.consul.kv import ConsulKV, Operation, TransactionConflict, create
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
from pyexec.errors import ConsulSessionLost, Unavailable
from pyexec.ports import IdempotencyKey, receiver_in

logger = logging.getLogger(__name__)

APPEND_SECONDS: Final = 5.0
"""How long an append with an unknown outcome is retried before it fails."""
RETRY_SECONDS: Final = 0.2

Fence = Callable[[], Operation]
"""Returns the operation that fails a transaction once the Consul session of this replica is lost."""


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


@define
class Commit:
    """One append to the log `name`, which may need several attempts. `fence` checks this replica's session.

    `is_written` reads from the log whether an earlier attempt has succeeded."""

    kv: ConsulKV
    name: str
    fence: Fence
    is_written: Callable[[], Awaitable[bool]]
    _deadline: float = field(factory=lambda: anyio.current_time() + APPEND_SECONDS)
    _sent: bool = False

    async def run(self, operations: Sequence[Operation]) -> None:
        """Run a transaction of the fence and of `operations` until its outcome is known.

        Raises `TransactionConflict` if nothing was written, and `Unavailable` if the outcome stays unknown."""
        while True:
            try:
                await self.kv.transaction([self._own_fence(), *operations])
            except OutcomeUnknown as error:
                # It may have been written, or be written later. A retry cannot write it twice.
                if anyio.current_time() >= self._deadline:
                    raise
                logger.warning("appending to %s failed; retrying: %s", self.name, error)
                self._sent = True
                await anyio.sleep(RETRY_SECONDS)
            except TransactionConflict:
                if self._sent and await self.is_written():
                    return
                raise
            else:
                return

    def _own_fence(self) -> Operation:
        """Return the fence. After a first attempt, a lost session no longer means that nothing was written."""
        try:
            return self.fence()
        except ConsulSessionLost as error:
            if self._sent:
                raise Unavailable(f"the outcome of an append is unknown: {error}") from error
            raise


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
