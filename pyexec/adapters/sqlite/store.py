"""The tables of the embedded event log, and the transactions on them. All calls block; use one thread at a time."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final, Self

from attrs import define

from pyexec.adapters.data_dir import file_identity
from pyexec.adapters.sqlite.session_table import SessionTable
from pyexec.adapters.sqlite.transaction import forget_retired, transaction, truncate_wal
from pyexec.codec import decode_event, encode_event, timestamp
from pyexec.domain.events import Event, Released
from pyexec.domain.execution import OPEN_STATUSES, Status, status_after
from pyexec.domain.ids import execution_id as execution_id_at
from pyexec.errors import Conflict, CorruptLog, KeyTaken, Unavailable
from pyexec.ports import IdempotencyKey, receiver_in

SCHEMA_VERSION: Final = 1
_SCHEMA: Final = f"""
BEGIN IMMEDIATE;
CREATE TABLE events (execution_id TEXT, seq INTEGER, event BLOB NOT NULL, PRIMARY KEY (execution_id, seq))
    WITHOUT ROWID;
CREATE TABLE keys (key_hash TEXT PRIMARY KEY, execution_id TEXT NOT NULL, fingerprint TEXT NOT NULL)
    WITHOUT ROWID;
CREATE INDEX keys_by_execution ON keys (execution_id);
CREATE TABLE retired (id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE executions (id TEXT PRIMARY KEY, length INTEGER NOT NULL, status TEXT NOT NULL, ended_at TEXT)
    WITHOUT ROWID;
CREATE INDEX executions_by_status ON executions (status, id);
CREATE INDEX executions_by_end ON executions (ended_at) WHERE ended_at IS NOT NULL;
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""
"""`executions` is an index, which can be rebuilt from `events`. The other tables are the source of truth."""
_ADDED_TABLES: Final = """
CREATE TABLE IF NOT EXISTS webhooks (execution_id TEXT PRIMARY KEY, receiver TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS session_events
    (session_id TEXT, seq INTEGER, event BLOB NOT NULL, PRIMARY KEY (session_id, seq)) WITHOUT ROWID;
"""
"""Tables of later versions. The schema version stays the same, because earlier versions ignore them."""

_CORRUPT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


@contextmanager
def translate_errors() -> Iterator[None]:
    """Translate errors of SQLite: `CorruptLog` for a corrupt file, `Unavailable` for all others."""
    try:
        yield
    except sqlite3.Error as error:
        # The low byte is the primary error code. Errors of the sqlite3 module itself have no code.
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _CORRUPT:
            raise CorruptLog(f"the file of the event log is corrupt: {error}") from error
        raise Unavailable(f"the event log cannot be used: {error}") from error


@define
class IndexEntry:
    """The index entry of one execution."""

    length: int = 0
    status: Status = Status.PENDING
    ended_at: str | None = None

    def apply(self, event: Event) -> None:
        """Update the entry with the next event. Raises `Conflict` if the execution has ended."""
        if self.ended_at is not None:
            raise Conflict("the execution has ended; no event can follow")
        self.length += 1
        self.status = status_after(event) or self.status
        if self.status not in OPEN_STATUSES:
            self.ended_at = timestamp(event.at)


class SqliteStore:
    """The tables. Call every method inside `translate_errors`."""

    def __init__(self, db: sqlite3.Connection, file: Path) -> None:
        self._db = db
        self._file = file
        self._identity = file_identity(file)
        self._erased_changes = -1  # a process before this one may have deleted rows
        self.sessions = SessionTable(db)

    @classmethod
    def open(cls, file: Path) -> Self:
        """Open the file; create it and its tables if they do not exist.

        Raises `CorruptLog` if the file has another schema version."""
        db = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        try:
            for setting in ("journal_mode = WAL", "synchronous = NORMAL", "secure_delete = ON"):
                db.execute(f"PRAGMA {setting}")
            _prepare_schema(db, file)
        except BaseException:
            db.close()
            raise
        return cls(db, file)

    def check(self) -> None:
        """Check that events can be written to the file, and that the next server will find them there.

        Raises `Unavailable` if the file was removed or replaced: SQLite would continue to write to the old one."""
        if file_identity(self._file) != self._identity:
            raise Unavailable(f"{self._file} was removed or replaced; restart the server")
        with transaction(self._db):
            pass  # another process can have locked the file

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def append(
        self, execution_id: str, after: int, events: Sequence[Event], key: IdempotencyKey | None
    ) -> IndexEntry:
        """Implement `EventLog.append` as one transaction. Return the new index entry."""
        with transaction(self._db):
            if key is not None:
                self._bind(key, execution_id)
            entry = self.entry(execution_id)
            if entry.length != after:
                raise Conflict(f"{execution_id} has {entry.length} events, not {after}")
            if after == 0 and self.is_retired(execution_id):
                raise Conflict(f"{execution_id} is retired")
            for event in events:
                entry.apply(event)
                self._db.execute(
                    "INSERT INTO events VALUES (?, ?, ?)", (execution_id, entry.length, encode_event(event))
                )
            if (receiver := receiver_in(after, events)) is not None:
                self._db.execute("INSERT INTO webhooks VALUES (?, ?)", (execution_id, receiver))
            self._store_entry(execution_id, entry)
        return entry

    def read(self, execution_id: str, after: int) -> Sequence[tuple[int, bytes]]:
        """Return numbers and encoded events from number `after + 1` on."""
        return self._db.execute(
            "SELECT seq, event FROM events WHERE execution_id = ? AND seq > ? ORDER BY seq",
            (execution_id, after),
        ).fetchall()

    def entry(self, execution_id: str) -> IndexEntry:
        """Return the index entry; an entry of length 0 if there is none."""
        row = self._db.execute(
            "SELECT length, status, ended_at FROM executions WHERE id = ?", (execution_id,)
        ).fetchone()
        return IndexEntry() if row is None else IndexEntry(row[0], Status(row[1]), row[2])

    def is_retired(self, execution_id: str) -> bool:
        """Return True if the execution was retired."""
        return self._first("SELECT id FROM retired WHERE id = ?", execution_id) is not None

    def open_executions(self) -> tuple[dict[str, int], set[str]]:
        """Return the log lengths of the executions that have not ended, and those that no replica has claimed."""
        placeholders = ", ".join("?" * len(OPEN_STATUSES))
        query = f"SELECT id, length, status FROM executions WHERE status IN ({placeholders})"  # noqa: S608 constant texts only
        rows = self._db.execute(query, tuple(OPEN_STATUSES)).fetchall()
        queued = {row[0] for row in rows if row[2] == Status.PENDING and self._is_queued(row[0], row[1])}
        return {row[0]: row[1] for row in rows}, queued

    def _is_queued(self, execution_id: str, length: int) -> bool:
        """Return True if the last event is the first one or a release. An unreadable event counts as neither."""
        if length == 1:
            return True
        try:
            events = [decode_event(event) for _, event in self.read(execution_id, length - 1)]
        except CorruptLog:
            return False
        return isinstance(events[-1], Released) if events else False

    def list_ids(self, *, status: Status | None, before: str | None, limit: int) -> Sequence[str]:
        """Return ids in descending order; with `status`, only those; with `before`, only smaller ones."""
        conditions = {"status = ?": status, "id < ?": before}
        given = {condition: value for condition, value in conditions.items() if value is not None}
        where = " AND ".join(["TRUE", *given])
        return self._ids(
            f"SELECT id FROM executions WHERE {where} ORDER BY id DESC LIMIT ?",  # noqa: S608 constant texts only
            *given.values(),
            limit,
        )

    def list_ended(self, before: datetime, limit: int, undelivered_before: datetime) -> Sequence[str]:
        """Return ids of executions that ended before `before`, the earliest end first; of those with an outstanding
        webhook, only those that ended before `undelivered_before`."""
        return self._ids(
            "SELECT id FROM executions WHERE ended_at < ? AND (ended_at < ? OR NOT EXISTS "
            "(SELECT 1 FROM webhooks WHERE execution_id = id)) ORDER BY ended_at, id LIMIT ?",
            timestamp(before),
            timestamp(undelivered_before),
            limit,
        )

    def webhooks(self) -> dict[str, str]:
        """Return the receivers of the outstanding webhooks, by execution id."""
        return dict(self._db.execute("SELECT execution_id, receiver FROM webhooks"))

    def remove_webhook(self, execution_id: str) -> None:
        """Delete an outstanding webhook, if it exists."""
        self._db.execute("DELETE FROM webhooks WHERE execution_id = ?", (execution_id,))

    def find_by_key(self, key_hash: str) -> tuple[str, str] | None:
        """Return the execution that an idempotency key is bound to, and its fingerprint."""
        return self._first("SELECT execution_id, fingerprint FROM keys WHERE key_hash = ?", key_hash)

    def erase_deleted(self) -> None:
        """Apply `secure_delete` to the file, and empty the write-ahead log, which still contains deleted rows."""
        if self._db.total_changes != self._erased_changes and truncate_wal(self._db):
            self._erased_changes = self._db.total_changes

    def retire(self, execution_id: str) -> bool:
        """Delete an ended execution; return False if it does not exist. Raises `Conflict` if it is open."""
        with transaction(self._db):
            entry = self.entry(execution_id)
            if entry.length == 0:
                return False
            if entry.ended_at is None:
                raise Conflict(f"{execution_id} has not ended; only ended executions can be retired")
            self._db.execute("DELETE FROM events WHERE execution_id = ?", (execution_id,))
            self._db.execute("DELETE FROM keys WHERE execution_id = ?", (execution_id,))
            self._db.execute("DELETE FROM executions WHERE id = ?", (execution_id,))
            self.remove_webhook(execution_id)
            self._db.execute("INSERT INTO retired VALUES (?)", (execution_id,))
            forget_retired(self._db, execution_id_at)
            return True

    def rebuild_index(self, after: str, limit: int) -> tuple[str | None, Mapping[str, CorruptLog]]:
        """Rebuild the index from the events, for at most `limit` executions after the id `after`.

        Return the last id, or None if there are no more, and the executions that cannot be read. Their index
        entries stay as they are."""
        unreadable: dict[str, CorruptLog] = {}
        with transaction(self._db):
            ids = self._ids(
                "SELECT DISTINCT execution_id FROM events WHERE execution_id > ? ORDER BY execution_id LIMIT ?",
                after,
                limit,
            )
            last = ids[-1] if len(ids) == limit else None
            self._remove_orphans(ids, after, last)
            for execution_id in ids:
                try:
                    self._rebuild(execution_id)
                except (CorruptLog, Conflict) as error:
                    unreadable[execution_id] = CorruptLog(str(error))
        return last, unreadable

    def _remove_orphans(self, ids: Sequence[str], after: str, last: str | None) -> None:
        """Delete index entries between `after` and `last` that have no events."""
        listed = self._ids(
            "SELECT id FROM executions WHERE id > ? AND (? IS NULL OR id <= ?)", after, last, last
        )
        for orphan in set(listed).difference(ids):
            self._db.execute("DELETE FROM executions WHERE id = ?", (orphan,))

    def _rebuild(self, execution_id: str) -> None:
        """Rebuild one index entry; write it only if it has changed."""
        entry = IndexEntry()
        for _, stored in self.read(execution_id, 0):
            entry.apply(decode_event(stored))
        current = self._db.execute(
            "SELECT length, status, ended_at FROM executions WHERE id = ?", (execution_id,)
        )
        if current.fetchone() != (entry.length, entry.status, entry.ended_at):
            self._store_entry(execution_id, entry)

    def _bind(self, key: IdempotencyKey, execution_id: str) -> None:
        if bound := self.find_by_key(key.key_hash):
            raise KeyTaken(*bound)
        self._db.execute("INSERT INTO keys VALUES (?, ?, ?)", (key.key_hash, execution_id, key.fingerprint))

    def _store_entry(self, execution_id: str, entry: IndexEntry) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO executions (id, length, status, ended_at) VALUES (?, ?, ?, ?)",
            (execution_id, entry.length, entry.status, entry.ended_at),
        )

    def _first(self, query: str, *values: object) -> tuple[str, str] | None:
        row: tuple[str, str] | None = self._db.execute(query, values).fetchone()
        return row

    def _ids(self, query: str, *values: object) -> Sequence[str]:
        return [row[0] for row in self._db.execute(query, values)]


def _prepare_schema(db: sqlite3.Connection, file: Path) -> None:
    if read_version(db, file) == 0:
        db.executescript(_SCHEMA)
    db.executescript(_ADDED_TABLES)


def read_version(db: sqlite3.Connection, file: Path) -> int:
    """Return the schema version, 0 for a new file. Raises `CorruptLog` for one that this server cannot read."""
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    if version not in (0, SCHEMA_VERSION):
        raise CorruptLog(f"{file} has schema version {version}; this server reads version {SCHEMA_VERSION}")
    return version
