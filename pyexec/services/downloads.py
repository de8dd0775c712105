"""The files that an execution brought back, for whoever asks, on whichever replica."""

import tarfile
from collections.abc import AsyncIterator, Sequence

from attrs import frozen

from pyexec.domain.events import Terminal
from pyexec.domain.output_files import OutputFile, OutputFiles
from pyexec.domain.result import files_of
from pyexec.errors import NotEnded, Unavailable, UnknownFile
from pyexec.ports import BlobStore
from pyexec.services.query import Queries

END = bytes(2 * tarfile.BLOCKSIZE)


@frozen(kw_only=True)
class Download:
    """What is sent: its size in bytes, and the bytes, to be read once."""

    size: int
    chunks: AsyncIterator[bytes]


class Downloads:
    """Reads only. Raises `UnknownExecution`, `NotEnded` before its end, `UnknownFile` for what it did not bring, and
    `Unavailable` when log or blobs are away, then also while `chunks` are read."""

    def __init__(self, queries: Queries, blobs: BlobStore) -> None:
        self._queries = queries
        self._blobs = blobs

    async def archive(self, execution_id: str) -> Download:
        """All files, as a tar."""
        files, end = await self._found(execution_id)
        headers = [_header(file, end) for file in files.listed]
        size = sum(len(header) for header in headers) + len(END)
        size += sum(file.size + _padding(file) for file in files.listed)
        return Download(size=size, chunks=self._tar(files, headers))

    async def one(self, execution_id: str, path: str) -> Download:
        """The contents of one file."""
        files, _ = await self._found(execution_id)
        start = 0
        for file in files.listed:
            if file.path == path:
                return Download(size=file.size, chunks=self._part(files, start, file.size))
            start += file.size
        raise UnknownFile(
            f"{execution_id} brought back no file {path[:200]!r}; its result lists what there is under files"
        )

    async def _found(self, execution_id: str) -> tuple[OutputFiles, Terminal]:
        execution = await self._queries.execution(execution_id)
        if execution.terminal is None:
            raise NotEnded(f"{execution_id} is {execution.status}; its files are there once it has ended")
        files = files_of(execution)
        if files is None:
            raise UnknownFile(f"{execution_id} was not asked for files; name them in output_files")
        return files, execution.terminal

    async def _tar(self, files: OutputFiles, headers: Sequence[bytes]) -> AsyncIterator[bytes]:
        contents = _Contents(self._blobs, files.blob)
        for file, header in zip(files.listed, headers, strict=True):
            yield header
            async for data in contents.next(file.size):
                yield data
            yield bytes(_padding(file))
        yield END

    async def _part(self, files: OutputFiles, start: int, size: int) -> AsyncIterator[bytes]:
        contents = _Contents(self._blobs, files.blob)
        async for _ in contents.next(start):
            pass
        async for data in contents.next(size):
            yield data


class _Contents:
    """A blob, read piece by piece."""

    def __init__(self, blobs: BlobStore, name: str | None) -> None:
        self._chunks = blobs.read(name) if name is not None else None
        self._name = name
        self._buffer = memoryview(b"")

    async def next(self, size: int) -> AsyncIterator[bytes]:
        """The next so many bytes."""
        while size:
            if not self._buffer:
                chunk = await anext(self._chunks, None) if self._chunks is not None else None
                if chunk is None:
                    raise Unavailable(f"the blob {self._name} is shorter than it was")
                self._buffer = memoryview(chunk)
            data, self._buffer = self._buffer[:size], self._buffer[size:]
            size -= len(data)
            yield bytes(data)


def _header(file: OutputFile, end: Terminal) -> bytes:
    member = tarfile.TarInfo(file.path)
    member.size, member.mtime = file.size, int(end.at.timestamp())
    return member.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


def _padding(file: OutputFile) -> int:
    return -file.size % tarfile.BLOCKSIZE
