"""Convert a source (text, files, a path or a stream) to the tar archive that the server accepts."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import BinaryIO

from anyio import to_thread
from attrs import evolve, frozen

from . import tar
from .arguments import wrong_type

#: Files with these suffixes are sent unchanged. The server rejects compressed archives with a clear message.
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")


@frozen
class Archive:
    """An uncompressed tar, built while it is sent. A `replayable` one can be built again, with the same bytes.

    `entrypoint` is the file to run if the server could not detect it and no option names one."""

    _produce: Callable[[], AsyncIterator[bytes]]
    replayable: bool
    _measure: Callable[[], int] | None = None
    entrypoint: str | None = None

    def chunks(self) -> AsyncIterator[bytes]:
        """Return the bytes of the archive, in chunks."""
        return self._produce()

    def size(self) -> int | None:
        """Return the size in bytes, or None for a stream. Raise OSError or ValueError if a file is unreadable."""
        return self._measure() if self._measure else None

    def with_progress(self, on_progress: Callable[[int], None]) -> Archive:
        """Return a copy that calls `on_progress` with the number of bytes sent so far."""

        async def produce() -> AsyncGenerator[bytes, None]:
            sent = 0
            async for chunk in self._produce():
                yield chunk
                sent += len(chunk)
                on_progress(sent)

        return evolve(self, produce=produce)


#: Source text, files by archive path, the path of a file, directory or tar, an open tar stream, or an archive.
Source = str | Mapping[str, tar.Content] | os.PathLike[str] | BinaryIO | AsyncIterable[bytes] | Archive


def archive(source: Source) -> Archive:
    """Build the archive of a source. A `str` is Python source text; pass a path as a `pathlib.Path`.

    Raise FileNotFoundError if the path does not exist, ValueError if it is neither a file nor a directory, and
    TypeError for an unsupported type.
    """
    if isinstance(source, Archive):
        return source
    if isinstance(source, str):
        return _from_files({"main.py": source})
    if isinstance(source, Mapping):
        return _from_files(source)
    if isinstance(source, os.PathLike):
        return _from_path(Path(source))
    if isinstance(source, AsyncIterable):
        return Archive(lambda: aiter(source), replayable=False)
    if hasattr(source, "read"):
        return Archive(lambda: _in_threads(tar.read(source)), replayable=False)
    raise wrong_type("source", "text, a mapping of files, a path or a tar stream", source)


def is_tar_name(path: Path) -> bool:
    """Return True if the file name ends like that of a tar archive, compressed or not."""
    return path.name.lower().endswith(TAR_SUFFIXES)


def _from_files(files: Mapping[str, tar.Content]) -> Archive:
    if not files:
        raise ValueError("nothing to run: no files given")
    members = [tar.member(name, content) for name, content in files.items()]
    measure = partial(tar.size, members)
    if all(isinstance(item.content, bytes) for item in members):
        return Archive(lambda: _from_memory(members), True, measure)
    return Archive(lambda: _in_threads(tar.write(members)), True, measure)


def _from_path(path: Path) -> Archive:
    if path.is_dir():
        # If a file changes between two attempts, the server answers 409 to the second one.
        return Archive(
            lambda: _in_threads(tar.write(tar.directory_members(path))),
            True,
            lambda: tar.size(tar.directory_members(path)),
        )
    if is_tar_name(path) and path.stat():
        return Archive(lambda: _in_threads(_read_file(path)), True, lambda: path.stat().st_size)
    return evolve(_from_files({path.name: path}), entrypoint=_entrypoint_of(path.name))


def _entrypoint_of(name: str) -> str | None:
    """Return the name of a file that is sent alone if the server does not detect it: a script needs no suffix."""
    is_detected = name.endswith(".py") and not name.startswith("._")
    return None if is_detected else name


def _read_file(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        yield from tar.read(file)


async def _from_memory(members: list[tar.Member]) -> AsyncGenerator[bytes, None]:
    for chunk in tar.write(members):
        yield chunk


async def _in_threads(chunks: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Run the blocking iterator in worker threads."""
    step = partial(next, chunks, None)
    while (chunk := await to_thread.run_sync(step)) is not None:
        yield chunk
