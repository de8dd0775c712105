"""The tables of the embedded event log, and the transactions on them. Blocking; for one thread at a time."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final, Self

from attrs import define

from pyexec.codec import decode_event, encode_event, timestamp
from pyexec.domain.events import Event
from pyexec.domain.execution import OPEN_STATUSES, Status, status_after
from pyexec.errors import Conflict, CorruptLog, KeyTaken, Unavailable
from pyexec.ports import IdempotencyKey

_SCHEMA_VERSION: Final = 1
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
PRAGMA user_version = {_SCHEMA_VERSION};
COMMIT;
"""
"""`executions` is an index that can be rebuilt from `events`; the other three are the truth."""

_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


@contextmanager
def translated_errors() -> Iterator[None]:
    """SQLite's errors end here: a damaged file is `CorruptLog`, all else `Unavailable`."""
    try:
        yield
    except sqlite3.Error as error:
        # The low byte is the primary code; the rest only refines it. Misuse of the module carries no code.
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED:
            raise CorruptLog(f"the event log's file is damaged: {error}") from error
        raise Unavailable(f"the event log cannot be used: {error}") from error


@define
class IndexEntry:
    """What the index knows of one execution, kept event by event."""

    length: int = 0
    status: Status = Status.PENDING
    ended_at: str | None = None

    def note(self, event: Event) -> None:
        """Counts one more event; raises `Conflict` when the execution has ended."""
        if self.ended_at is not None:
            raise Conflict("the execution has ended, so nothing can follow")
        self.length += 1
        self.status = status_after(event) or self.status
        if self.status not in OPEN_STATUSES:
            self.ended_at = timestamp(event.at)


class SqliteStore:
    """The tables. Every method may raise what `translated_errors` makes of SQLite's own errors."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    @classmethod
    def open(cls, file: Path) -> Self:
        """Makes the file and its tables if need be; raises `CorruptLog` when it holds something else."""
        db = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            _prepare_schema(db, file)
        except BaseException:
            db.close()
            raise
        return cls(db)

    def close(self) -> None:
        """Lets the file go."""
        self._db.close()

    def append(
        self, execution_id: str, after: int, events: Sequence[Event], key: IdempotencyKey | None
    ) -> None:
        """One transaction, as `EventLog.append` says."""
        with self._transaction():
            if key is not None:
                self._bind(key, execution_id)
            entry = self.entry(execution_id)
            if entry.length != after:
                raise Conflict(f"{execution_id} has {entry.length} events, not {after}")
            if after == 0 and self.is_retired(execution_id):
                raise Conflict(f"{execution_id} is retired")
            for event in events:
                entry.note(event)
                self._db.execute(
                    "INSERT INTO events VALUES (?, ?, ?)", (execution_id, entry.length, encode_event(event))
                )
            self._store_entry(execution_id, entry)

    def read(self, execution_id: str, after: int) -> Sequence[tuple[int, bytes]]:
        """Numbers and stored events from number `after + 1` on."""
        return self._db.execute(
            "SELECT seq, event FROM events WHERE execution_id = ? AND seq > ? ORDER BY seq",
            (execution_id, after),
        ).fetchall()

    def entry(self, execution_id: str) -> IndexEntry:
        """What the index says; an entry of length 0 when there is none."""
        row = self._db.execute(
            "SELECT length, status, ended_at FROM executions WHERE id = ?", (execution_id,)
        ).fetchone()
        return IndexEntry() if row is None else IndexEntry(row[0], Status(row[1]), row[2])

    def is_retired(self, execution_id: str) -> bool:
        """Whether there was such a log, and it is gone for good."""
        return self._first("SELECT id FROM retired WHERE id = ?", execution_id) is not None

    def open_lengths(self) -> Mapping[str, int]:
        """Every execution that has not ended, and the length of its log."""
        marks = ", ".join("?" * len(OPEN_STATUSES))
        query = f"SELECT id, length FROM executions WHERE status IN ({marks})"  # noqa: S608 question marks
        return dict(self._db.execute(query, tuple(OPEN_STATUSES)))

    def newest(self, *, status: Status | None, before: str | None, limit: int) -> Sequence[str]:
        """Ids in descending order, of one status or of all, below `before`."""
        conditions = {"status = ?": status, "id < ?": before}
        given = {text: value for text, value in conditions.items() if value is not None}
        where = " AND ".join(["TRUE", *given])
        return self._ids(
            f"SELECT id FROM executions WHERE {where} ORDER BY id DESC LIMIT ?",  # noqa: S608 texts of our own
            *given.values(),
            limit,
        )

    def ended_before(self, moment: datetime, limit: int) -> Sequence[str]:
        """Ids in the order of their ends."""
        return self._ids(
            "SELECT id FROM executions WHERE ended_at < ? ORDER BY ended_at, id LIMIT ?",
            timestamp(moment),
            limit,
        )

    def key_owner(self, key_hash: str) -> tuple[str, str] | None:
        """The execution that the key is bound to, and the fingerprint."""
        return self._first("SELECT execution_id, fingerprint FROM keys WHERE key_hash = ?", key_hash)

    def retire(self, execution_id: str) -> bool:
        """Removes an ended execution for good; False when there is none."""
        with self._transaction():
            entry = self.entry(execution_id)
            if entry.length == 0:
                return False
            if entry.ended_at is None:
                raise Conflict(f"{execution_id} has not ended; only what has ended can be retired")
            self._db.execute("DELETE FROM events WHERE execution_id = ?", (execution_id,))
            self._db.execute("DELETE FROM keys WHERE execution_id = ?", (execution_id,))
            self._db.execute("DELETE FROM executions WHERE id = ?", (execution_id,))
            self._db.execute("INSERT INTO retired VALUES (?)", (execution_id,))
            return True

    def rebuild_index(self, after: str, limit: int) -> tuple[str | None, Mapping[str, CorruptLog]]:
        """Makes the index anew from the events alone, for the next executions after one: the last of them, or None
        when there are no more; and what cannot be read, and keeps the index that it has."""
        unreadable: dict[str, CorruptLog] = {}
        with self._transaction():
            ids = self._ids(
                "SELECT DISTINCT execution_id FROM events WHERE execution_id > ? ORDER BY execution_id LIMIT ?",
                after,
                limit,
            )
            last = ids[-1] if len(ids) == limit else None
            self._remove_unfounded(ids, after, last)
            for execution_id in ids:
                try:
                    self._rebuild(execution_id)
                except (CorruptLog, Conflict) as error:
                    unreadable[execution_id] = CorruptLog(str(error))
        return last, unreadable

    def _remove_unfounded(self, ids: Sequence[str], after: str, last: str | None) -> None:
        """Takes what no event speaks for out of that stretch of the index."""
        shown = self._ids(
            "SELECT id FROM executions WHERE id > ? AND (? IS NULL OR id <= ?)", after, last, last
        )
        for unfounded in set(shown).difference(ids):
            self._db.execute("DELETE FROM executions WHERE id = ?", (unfounded,))

    def _rebuild(self, execution_id: str) -> None:
        """What is right already is not written."""
        entry = IndexEntry()
        for _, stored in self.read(execution_id, 0):
            entry.note(decode_event(stored))
        shown = self._db.execute(
            "SELECT length, status, ended_at FROM executions WHERE id = ?", (execution_id,)
        )
        if shown.fetchone() != (entry.length, entry.status, entry.ended_at):
            self._store_entry(execution_id, entry)

    def _bind(self, key: IdempotencyKey, execution_id: str) -> None:
        if owner := self.key_owner(key.key_hash):
            raise KeyTaken(*owner)
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

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            # A full disk may have made SQLite roll back by itself.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise


def _prepare_schema(db: sqlite3.Connection, file: Path) -> None:
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version == 0:
        db.executescript(_SCHEMA)
    elif version != _SCHEMA_VERSION:
        raise CorruptLog(f"{file} is of version {version}; this server reads version {_SCHEMA_VERSION}")
