"""The event logs of interpreter sessions in Consul, shared by all replicas of a deployment."""

from collections import Counter
from collections.abc import Sequence

from attrs import frozen

from pyexec.adapters.consul.append import Commit, Fence
from pyexec.adapters.consul.kv import ConsulKV, Operation, TransactionConflict, create
from pyexec.adapters.consul.schema import (
    SESSIONS,
    replica_key,
    session_event_key,
    session_prefix,
    tombstone_key,
)
from pyexec.codec import decode_session_event, encode_event
from pyexec.domain.ids import is_session_id
from pyexec.domain.session_events import SessionClosed, SessionEvent
from pyexec.errors import Conflict, ConsulSessionLost, CorruptLog
from pyexec.ports import SessionIndex, check_append


@frozen
class ConsulSessionLog:
    """`ports.SessionLog` on Consul. `fence` checks the Consul session of this replica."""

    kv: ConsulKV
    fence: Fence

    async def append(
        self, session_id: str, after: int, events: Sequence[SessionEvent], *, fence: str | None = None
    ) -> None:
        check_append(after, events, None)

        async def is_written() -> bool:
            _, entry = await self.kv.get(session_event_key(session_id, after + 1))
            return entry is not None and decode_session_event(entry.value).nonce == events[0].nonce

        if after == 0:
            operations = [Operation(verb="check-not-exists", key=tombstone_key(session_id))]
        else:
            operations = [Operation(verb="get", key=session_event_key(session_id, after))]
        if fence is not None:
            operations.append(Operation(verb="check-not-exists", key=replica_key(fence)))
        operations += [
            create(session_event_key(session_id, seq), encode_event(event))
            for seq, event in enumerate(events, after + 1)
        ]
        try:
            await Commit(self.kv, session_id, self.fence, is_written).run(operations)
        except TransactionConflict as conflict:
            if any(operation.verb == "check-session" for operation in conflict.failed_operations):
                raise ConsulSessionLost(str(conflict)) from conflict
            raise Conflict(f"{session_id} does not end at event {after}: {conflict}") from conflict

    async def read(self, session_id: str) -> Sequence[SessionEvent]:
        listing = await self.kv.recurse(session_prefix(session_id))
        for seq, entry in enumerate(listing.entries, 1):
            if entry.key != session_event_key(session_id, seq):
                raise CorruptLog(f"{session_id}: found the key {entry.key} in place of event {seq}")
        return [decode_session_event(entry.value) for entry in listing.entries]

    async def all(self, since: int | None = None) -> SessionIndex:
        version, keys = await self.kv.watch_keys(SESSIONS, since)
        if SESSIONS not in keys:
            # Every write to Consul ends a blocking query on an empty folder; so the folder gets a key.
            await self.kv.put(SESSIONS, b"", index=0)
        names = (key.removeprefix(SESSIONS).partition("/")[0] for key in keys)
        return SessionIndex(version=version, lengths=Counter(name for name in names if is_session_id(name)))

    async def retire(self, session_id: str) -> None:
        events = await self.read(session_id)
        if not events:
            return
        if not isinstance(events[-1], SessionClosed):
            raise Conflict(f"{session_id} is open; only closed sessions can be retired")
        await self.kv.transaction(
            [
                Operation(verb="delete-tree", key=session_prefix(session_id)),
                Operation(verb="set", key=tombstone_key(session_id), value=b""),
            ]
        )
