"""The blob store in a local directory: each blob is one file, complete or absent."""

import io
import os
import re
import secrets
import stat
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Set
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Final, Self

import anyio
from anyio import to_thread

from pyexec.domain.ids import is_execution_id
from pyexec.errors import Unavailable

CHUNK_BYTES: Final = 256 * 1024
ORPHAN_AGE: Final = timedelta(days=1)
"""A blob of this age without an execution is left from a crash."""
_PARTIAL: Final = ".partial-"
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*/[A-Za-z0-9_-][A-Za-z0-9_.-]*")


def check_name(name: str) -> str:
    """Return a valid blob name. Raises `ValueError` for any other: it could lead out of the store."""
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"{name!r} is not <execution id>/<name>")
    return name


def is_own_name(name: str) -> bool:
    """Return True for a name that this store can have written: a valid name that begins with an execution id.

    A sweep skips every other name, which belongs to something else."""
    return _NAME.fullmatch(name) is not None and is_execution_id(name.partition("/")[0])


class FileBlobs:
    """`ports.BlobStore` in a directory. A blob is written to a partial file, which is renamed when it is durable."""

    bytes_max: Final = None

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @classmethod
    async def open(cls, directory: Path) -> Self:
        """Create the directory if it does not exist, and delete partial files of an earlier process."""
        await to_thread.run_sync(_prepare, directory)
        return cls(directory)

    async def put(self, name: str, chunks: AsyncIterator[bytes]) -> None:
        target = self._path(name)
        partial = target.with_name(f"{_PARTIAL}{secrets.token_hex(8)}")
        try:
            await self._write(partial, name, chunks)
            with _translate_write_errors(name):
                await to_thread.run_sync(_publish, partial, target)
        except BaseException:
            with anyio.CancelScope(shield=True), suppress(OSError):
                await to_thread.run_sync(partial.unlink)
            raise

    async def _write(self, partial: Path, name: str, chunks: AsyncIterator[bytes]) -> None:
        with _translate_write_errors(name):
            file = await to_thread.run_sync(lambda: partial.open("xb", buffering=0))
        with file:
            async for chunk in chunks:
                with _translate_write_errors(name):
                    await to_thread.run_sync(_write_all, file, chunk)
            with _translate_write_errors(name):
                await to_thread.run_sync(os.fsync, file.fileno())

    async def read(self, name: str) -> AsyncIterator[bytes]:
        path = self._path(name)
        with _translate_errors(name):
            file = await to_thread.run_sync(lambda: path.open("rb", buffering=0))
        with file:
            while True:
                with _translate_errors(name):
                    chunk = await to_thread.run_sync(file.read, CHUNK_BYTES)
                if not chunk:
                    return
                yield chunk

    async def delete(self, name: str) -> None:
        path = self._path(name)
        with _translate_errors(name):
            await to_thread.run_sync(lambda: path.unlink(missing_ok=True))

    async def sweep(self, alive: Set[str], exists: Callable[[str], Awaitable[bool]]) -> None:
        del alive  # files do not record which replica stored them
        for name in await to_thread.run_sync(_older_than, self._directory, ORPHAN_AGE):
            if not await exists(name.partition("/")[0]):
                await self.delete(name)

    def _path(self, name: str) -> Path:
        """Return the path of a blob. There are no subdirectories, which could be removed during a write into them."""
        return self._directory / check_name(name).replace("/", "+")


def _older_than(directory: Path, age: timedelta) -> list[str]:
    """Return the names of all blobs stored longer than `age` ago. Files that are no blobs are left out."""
    newest = time.time() - age.total_seconds()
    with _translate_errors(directory.name):
        found = {path.name.replace("+", "/", 1): path for path in directory.iterdir()}
    return [name for name, path in found.items() if is_own_name(name) and _is_older(path, newest)]


def _is_older(path: Path, newest: float) -> bool:
    """Return True for a regular file that was last written before `newest`."""
    try:
        status = path.lstat()
    except FileNotFoundError:  # deleted meanwhile
        return False
    except OSError as error:
        raise Unavailable(f"the blob store failed at {path.name}: {error.strerror}") from error
    return stat.S_ISREG(status.st_mode) and status.st_mtime < newest


def _prepare(directory: Path) -> None:
    with _translate_errors(directory.name):
        directory.mkdir(parents=True, exist_ok=True)
        for partial in directory.glob(f"{_PARTIAL}*"):
            partial.unlink()


def _write_all(file: io.FileIO, chunk: bytes) -> None:
    """Write without a buffer, so that closing the file cannot fail."""
    rest = memoryview(chunk)
    while rest:
        rest = rest[file.write(rest) :]


def _publish(partial: Path, target: Path) -> None:
    partial.rename(target)
    directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


@contextmanager
def _translate_errors(name: str) -> Iterator[None]:
    """Translate errors of file operations. Never wrap the source of an upload: its errors belong to the caller."""
    try:
        yield
    except FileNotFoundError as error:
        raise Unavailable(f"blob {name} does not exist") from error
    except OSError as error:
        raise Unavailable(f"the blob store failed at {name}: {error.strerror}") from error


@contextmanager
def _translate_write_errors(name: str) -> Iterator[None]:
    """Translate errors of writing a blob. If a file is not found, an operator has removed the directory."""
    try:
        yield
    except OSError as error:
        raise Unavailable(f"the blob store cannot write {name}: {error.strerror}") from error
