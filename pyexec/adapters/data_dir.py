"""The directory that one server keeps its data in: held by one process at a time, and with an id for life."""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from attrs import define

from pyexec.errors import SettingsError

_LOCK_FILE = "lock"
_ID_FILE = "deployment"


@define
class DataDir:
    """A data directory that this process holds until `release`."""

    path: Path
    deployment: str
    """A random id, made when the directory was first used; it tells this server's containers from others'."""
    _lock: int

    @classmethod
    def hold(cls, path: Path) -> Self:
        """Makes the directory if need be, and locks it; raises `SettingsError` when that cannot be."""
        make(path)
        with _named(path):
            lock = os.open(path / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _lock(lock, path)
            return cls(path=path, deployment=_deployment(path), lock=lock)
        except BaseException:
            os.close(lock)
            raise

    @classmethod
    def holder(cls, path: Path) -> str | None:
        """The process that holds the directory now; None when nobody does. Changes nothing."""
        try:
            lock = os.open(path / _LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _holder(lock)
        else:
            return None
        finally:
            os.close(lock)

    def release(self) -> None:
        """Lets another process have it."""
        os.close(self._lock)


def make(path: Path) -> None:
    """The directory, if it is not there yet, for nobody else to read: programs' secrets lie in it. Raises
    `SettingsError` when that cannot be."""
    with _named(path):
        path.mkdir(parents=True, exist_ok=True, mode=0o700)


@contextmanager
def _named(path: Path) -> Iterator[None]:
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
            f"PYEXEC_DATA_DIR is {str(path)!r}, which the process {_holder(lock)} holds; "
            "each server needs a data directory of its own"
        ) from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, b"%d\n" % os.getpid(), 0)


def _holder(lock: int) -> str:
    return os.pread(lock, 20, 0).decode("ascii", "replace").strip() or "unknown"


def _deployment(path: Path) -> str:
    """Called with the lock held, so nobody else makes an id at the same time."""
    file = path / _ID_FILE
    if file.exists():
        return file.read_text("ascii").strip()
    draft = path / f"{_ID_FILE}.new"
    with draft.open("w", encoding="ascii") as writer:
        writer.write(secrets.token_hex(8) + "\n")
        writer.flush()
        os.fsync(writer.fileno())
    draft.rename(file)
    return file.read_text("ascii").strip()
