"""The file of an embedded log, read and changed from outside."""

import contextlib
import sqlite3
from pathlib import Path

from pyexec.adapters.sqlite.log import FILE_NAME


def index_of(directory: Path) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(directory / FILE_NAME)) as db:
        return db.execute("SELECT * FROM executions ORDER BY id").fetchall()


def change(directory: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(directory / FILE_NAME)) as db, db:
        db.execute(statement)


def rows_of(directory: Path, table: str) -> int:
    with contextlib.closing(sqlite3.connect(directory / FILE_NAME)) as db:
        count: int = db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        return count
