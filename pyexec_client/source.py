"""What to run, in any of the forms that the client takes, as the archive that the server takes."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import BinaryIO

from anyio import to_thread
from attrs import evolve, frozen

from . import tar

#: Names that are sent as they are. The server takes no compressed one, and says so better than we could.
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")


@frozen
class Archive:
    """An uncompressed tar, produced as it is sent. `replayable`: it can be produced again, byte for byte."""

    _produce: Callable[[], AsyncIterator[bytes]]
    replayable: bool
    _measure: Callable[[], int] | None = None

    def chunks(self) -> AsyncIterator[bytes]:
        return self._produce()

    def size(self) -> int | None:
        """How many bytes it has, None for a stream. OSError or ValueError if what it holds cannot be read."""
        return self._measure() if self._measure else None

    def observed(self, tell: Callable[[int], None]) -> Archive:
        """The same, which tells how many bytes have been sent so far."""

        async def produce() -> AsyncGenerator[bytes, None]:
            sent = 0
            async for chunk in self._produce():
                yield chunk
                sent += len(chunk)
                tell(sent)

        return evolve(self, produce=produce)


#: Source text; files by path in the archive; a path of a file, a directory or a tar; an open tar stream; an archive.
Source = str | Mapping[str, tar.Content] | os.PathLike[str] | BinaryIO | AsyncIterable[bytes] | Archive


def archive(source: Source) -> Archive:
    """The archive of a source. A `str` is Python source text; give a path as a `pathlib.Path`.

    Raises FileNotFoundError for a path that does not exist, ValueError for one that is neither a file nor a
    directory, TypeError for anything that is no source.
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
    raise TypeError(
        f"a source is text, a mapping of files, a path or a tar stream, not {type(source).__name__}"
    )


def is_tar_name(path: Path) -> bool:
    """Whether a path's name says that it is an archive already."""
    return path.name.lower().endswith(TAR_SUFFIXES)


def _from_files(files: Mapping[str, tar.Content]) -> Archive:
    if not files:
        raise ValueError("there are no files to run")
    members = [tar.member(name, content) for name, content in files.items()]
    measure = partial(tar.size, members)
    if all(isinstance(item.content, bytes) for item in members):
        return Archive(lambda: _from_memory(members), True, measure)
    return Archive(lambda: _in_threads(tar.write(members)), True, measure)


def _from_path(path: Path) -> Archive:
    if path.is_dir():
        # Not replayable in the strict sense if somebody edits meanwhile; the server would then answer 409.
        return Archive(
            lambda: _in_threads(tar.write(tar.directory_members(path))),
            True,
            lambda: tar.size(tar.directory_members(path)),
        )
    if is_tar_name(path) and path.stat():
        return Archive(lambda: _in_threads(_read_file(path)), True, lambda: path.stat().st_size)
    return _from_files({path.name: path})


def _read_file(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        yield from tar.read(file)


async def _from_memory(members: list[tar.Member]) -> AsyncGenerator[bytes, None]:
    for chunk in tar.write(members):
        yield chunk


async def _in_threads(chunks: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Blocking reads, off the event loop."""
    step = partial(next, chunks, None)
    while (chunk := await to_thread.run_sync(step)) is not None:
        yield chunk
