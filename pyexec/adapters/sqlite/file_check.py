"""Check the file of the embedded event log without changing anything, for `--check`."""

import sqlite3
from contextlib import closing
from pathlib import Path

from pyexec.adapters.sqlite.log import FILE_NAME
from pyexec.adapters.sqlite.store import SCHEMA_VERSION, SqliteStore, read_version, translate_errors


def check_log(directory: Path) -> None:
    """Read from the log in `directory`, if there is one, what a server reads at its start.

    Call this only while no process has the log open. It creates no file: with `immutable`, SQLite does not use the
    files that it usually keeps next to the log. Raises `CorruptLog` if the log cannot be read, or has another schema
    version, and `Unavailable`."""
    file = directory / FILE_NAME
    if not file.exists():
        return
    with (
        translate_errors(),
        closing(sqlite3.connect(f"{file.absolute().as_uri()}?immutable=1", uri=True)) as db,
    ):
        version = read_version(db, file)
        # After a crash, a second file has the newest pages, which `immutable` ignores.
        has_newer_pages = file.with_name(f"{file.name}-wal").exists()
        if version == SCHEMA_VERSION and not has_newer_pages:
            SqliteStore(db, file).open_executions()
