"""The data directory of a server: locked by one process at a time, with an id that never changes."""

import fcntl
import logging
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from attrs import define

from pyexec.errors import SettingsError

logger = logging.getLogger(__name__)

PROBE_BYTES = 64 * 1024
"""More than a small transaction of the event log writes."""
_LOCK_FILE = "lock"
_ID_FILE = "deployment"
_ORIGIN_FILE = "origin"


@define
class DataDir:
    """A data directory that this process has locked, until `release`."""

    path: Path
    deployment: str
    """A random id, created with the directory. It distinguishes the containers of this server from others."""
    copy_id: str | None
    """A random id if the directory is a copy, whose original another server may use; else None."""
    _lock: int

    @classmethod
    def acquire(cls, path: Path) -> Self:
        """Create the directory if it does not exist, and lock it.

        Raises `SettingsError` if that fails, or if the id in it is damaged."""
        create_data_dir(path)
        with _translate_errors(path):
            lock = os.open(path / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            with _translate_errors(path):
                _lock(lock, path)
                return cls(path=path, deployment=_deployment(path), copy_id=_copy_id(path), lock=lock)
        except BaseException:
            os.close(lock)
            raise

    @classmethod
    def lock_owner(cls, path: Path) -> str | None:
        """Return the id of the process that has locked the directory; None if it is not locked. Changes nothing."""
        try:
            lock = os.open(path / _LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read_owner(lock)
        else:
            return None
        finally:
            os.close(lock)

    @staticmethod
    def check_deployment(path: Path) -> None:
        """Raise `SettingsError` if the directory has a damaged id, and `OSError` if it cannot be read."""
        file = path / _ID_FILE
        if file.exists():
            _read_deployment(file)

    def release(self) -> None:
        """Unlock the directory."""
        os.close(self._lock)


def create_data_dir(path: Path) -> None:
    """Create the directory if it does not exist, readable by this user only: it holds secrets of programs.

    Raises `SettingsError` if that fails."""
    with _translate_errors(path):
        path.mkdir(parents=True, exist_ok=True, mode=0o700)


def try_write(path: Path) -> None:
    """Write `PROBE_BYTES` to an unnamed file in the directory, and delete it. Raises `OSError` if that fails.

    The kernel usually writes nothing of it to the disk, because the file is deleted at once."""
    with tempfile.TemporaryFile(dir=path) as file:
        file.write(bytes(PROBE_BYTES))
        file.flush()


def file_identity(file: Path) -> tuple[int, int] | None:
    """Return the device and the inode, which no other existing file has; None if there is no such file."""
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


@contextmanager
def _translate_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SettingsError(
            f"PYEXEC_DATA_DIR is {str(path)!r}, which cannot be used ({error.strerror}); "
            "it must be a directory that the server may write to"
        ) from error


def _lock(lock: int, path: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise SettingsError(
            f"PYEXEC_DATA_DIR is {str(path)!r}, which is locked by process {_read_owner(lock)}; "
            "each server needs its own data directory"
        ) from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, b"%d\n" % os.getpid(), 0)


def _read_owner(lock: int) -> str:
    return os.pread(lock, 20, 0).decode("ascii", "replace").strip() or "unknown"


def _deployment(path: Path) -> str:
    """Return the id of the directory, and create it if it does not exist. The lock must be held."""
    file = path / _ID_FILE
    if file.exists():
        return _read_deployment(file)
    _write(file, secrets.token_hex(8))
    return _read_deployment(file)


def _copy_id(path: Path) -> str | None:
    """Return None for an original directory, and a random id for a copy. The lock must be held.

    The directory records its own inode. If that differs, it has been copied, restored or moved."""
    file, status = path / _ORIGIN_FILE, path.stat()
    inode = f"{status.st_dev}-{status.st_ino}"
    if not file.exists():  # new, or written by an earlier version
        _write(file, inode)
        return None
    recorded, _, copy_id = file.read_text("ascii", "replace").strip().partition(" ")
    if recorded != inode:
        logger.warning(
            "the data directory %s was copied, restored or moved; ignoring the sandboxes and sessions of the original",
            path,
        )
        copy_id = secrets.token_hex(8)
        _write(file, f"{inode} {copy_id}")
    return copy_id or None


def _write(file: Path, line: str) -> None:
    """Write a file of one line atomically."""
    draft = file.with_name(f"{file.name}.new")
    with draft.open("w", encoding="ascii") as writer:
        writer.write(f"{line}\n")
        writer.flush()
        os.fsync(writer.fileno())
    draft.rename(file)


def _read_deployment(file: Path) -> str:
    content = file.read_bytes()
    if re.fullmatch(rb"[0-9a-f]{16}\n", content) is None:
        raise SettingsError(
            f"{file} in PYEXEC_DATA_DIR holds {content[:40]!r}, which is not a deployment id: restore the file. "
            "Without it, the server gets a new id and does not find the containers of an earlier process"
        )
    return content.decode()[:-1]
