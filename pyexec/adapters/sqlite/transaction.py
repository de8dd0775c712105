"""Transactions and the write-ahead log of SQLite, and the table of retired ids."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

RETIRED_KEPT_SECONDS: Final = 24 * 3600
"""An entry in `retired` prevents a delayed first append, which follows the creation of the id by minutes at most."""


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Commit at the end of the body; roll back if it raises."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        # SQLite may have rolled back by itself, as on a full disk.
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def truncate_wal(db: sqlite3.Connection) -> bool:
    """Empty the write-ahead log. Return False, without waiting, if another process uses it, such as a backup."""
    (timeout_ms,) = db.execute("PRAGMA busy_timeout").fetchone()
    db.execute("PRAGMA busy_timeout = 0")
    try:
        (is_busy, *_) = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        db.execute(f"PRAGMA busy_timeout = {timeout_ms}")
    return not is_busy


def forget_retired(db: sqlite3.Connection, id_at: Callable[[int, bytes], str]) -> None:
    """Delete entries in `retired` that are no longer needed. `id_at` makes an id for a time and eight random bytes."""
    oldest_kept = id_at(time.time_ns() - RETIRED_KEPT_SECONDS * 1_000_000_000, bytes(8))
    db.execute("DELETE FROM retired WHERE id < ? AND id >= ?", (oldest_kept, id_at(0, bytes(8))))
