"""The table of the events of interpreter sessions, and the transactions on it. All calls block."""

import sqlite3
from collections.abc import Mapping, Sequence

from attrs import frozen

from pyexec.adapters.sqlite.transaction import forget_retired, transaction
from pyexec.codec import decode_session_event, encode_event
from pyexec.domain.ids import session_id as session_id_at
from pyexec.domain.session_events import SessionClosed, SessionEvent
from pyexec.errors import Conflict


@frozen
class SessionTable:
    """The table. Call every method inside `translate_errors`."""

    db: sqlite3.Connection

    def append(self, session_id: str, after: int, events: Sequence[SessionEvent]) -> None:
        """Implement `SessionLog.append` as one transaction."""
        with transaction(self.db):
            query = "SELECT count(*) FROM session_events WHERE session_id = ?"
            (length,) = self.db.execute(query, (session_id,)).fetchone()
            if length != after:
                raise Conflict(f"{session_id} has {length} events, not {after}")
            if after == 0 and self._is_retired(session_id):
                raise Conflict(f"{session_id} is retired")
            rows = [(session_id, seq, encode_event(event)) for seq, event in enumerate(events, after + 1)]
            self.db.executemany("INSERT INTO session_events VALUES (?, ?, ?)", rows)

    def read(self, session_id: str) -> Sequence[tuple[int, bytes]]:
        """Return the numbers and the encoded events of a session."""
        query = "SELECT seq, event FROM session_events WHERE session_id = ? ORDER BY seq"
        return self.db.execute(query, (session_id,)).fetchall()

    def lengths(self) -> Mapping[str, int]:
        """Return the number of events of each session."""
        query = "SELECT session_id, count(*) FROM session_events GROUP BY session_id"
        return dict(self.db.execute(query).fetchall())

    def retire(self, session_id: str) -> bool:
        """Delete a closed session; return False if it does not exist. Raises `Conflict` if it is open."""
        with transaction(self.db):
            rows = self.read(session_id)
            if not rows:
                return False
            if not isinstance(decode_session_event(rows[-1][1]), SessionClosed):
                raise Conflict(f"{session_id} is open; only closed sessions can be retired")
            self.db.execute("DELETE FROM session_events WHERE session_id = ?", (session_id,))
            self.db.execute("INSERT INTO retired VALUES (?)", (session_id,))
            forget_retired(self.db, session_id_at)
            return True

    def _is_retired(self, session_id: str) -> bool:
        query = "SELECT id FROM retired WHERE id = ?"
        return self.db.execute(query, (session_id,)).fetchone() is not None
