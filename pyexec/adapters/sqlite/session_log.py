"""The event logs of interpreter sessions in SQLite, for a server without a cluster."""

import time
from collections.abc import Sequence

from pyexec.adapters.sqlite.store_thread import StoreThread
from pyexec.aio import Broadcast
from pyexec.codec import decode_session_event
from pyexec.domain.session_events import SessionEvent
from pyexec.errors import Conflict, CorruptLog
from pyexec.ports import SessionIndex, check_append


class EmbeddedSessionLog:
    """`ports.SessionLog` in the file of the embedded event log, which opens and closes it."""

    def __init__(self, thread: StoreThread, replica: str | None) -> None:
        self._thread = thread
        self._replica = replica
        self._version = time.time_ns()  # versions of an earlier process never come again
        self._changed = Broadcast()

    async def append(
        self, session_id: str, after: int, events: Sequence[SessionEvent], *, fence: str | None = None
    ) -> None:
        check_append(after, events, None)
        if fence is not None and fence == self._replica:
            raise Conflict(f"{fence} is still a member")
        await self._thread.run(lambda store: store.sessions.append(session_id, after, events), self._notify)

    async def read(self, session_id: str) -> Sequence[SessionEvent]:
        rows = await self._thread.run(lambda store: store.sessions.read(session_id))
        if any(seq != expected for expected, (seq, _) in enumerate(rows, 1)):
            raise CorruptLog(f"{session_id}: an event is missing")
        return [decode_session_event(event) for _, event in rows]

    async def all(self, since: int | None = None) -> SessionIndex:
        while self._version == since:
            await self._changed.wait()
        version = self._version
        lengths = await self._thread.run(lambda store: store.sessions.lengths())
        return SessionIndex(version=version, lengths=lengths)

    async def retire(self, session_id: str) -> None:
        await self._thread.run(lambda store: store.sessions.retire(session_id), self._notify)

    def _notify(self, _: object) -> None:
        self._version += 1
        self._changed.notify_all()
