"""Serve the output files of an ended execution, on any replica: one file, or all of them as a tar."""

import tarfile
from collections.abc import AsyncIterator, Sequence

from attrs import frozen

from pyexec.domain.events import Terminal
from pyexec.domain.output_files import OutputFile, OutputFiles
from pyexec.domain.result import files_of
from pyexec.errors import NotEnded, Unavailable, UnknownFile, quote
from pyexec.ports import BlobStore, Caller
from pyexec.services.executions import Executions

TAR_END = bytes(2 * tarfile.BLOCKSIZE)


@frozen(kw_only=True)
class Download:
    """A body to send: its size in bytes, and its bytes, which can be iterated once."""

    size: int
    chunks: AsyncIterator[bytes]


class Downloads:
    """Reads output files. Raises `UnknownExecution`, `NotEnded` before the end, `UnknownFile` for a path that is not
    among them, and `Unavailable` if log or blobs do not answer, also while `chunks` are iterated."""

    def __init__(self, executions: Executions, blobs: BlobStore) -> None:
        self._executions = executions
        self._blobs = blobs

    async def archive(self, execution_id: str, caller: Caller) -> Download:
        """Return all files as a tar."""
        files, end = await self._files(execution_id, caller)
        headers = [_header(file, end) for file in files.listed]
        size = sum(len(header) for header in headers) + len(TAR_END)
        size += sum(file.size + _padding(file) for file in files.listed)
        return Download(size=size, chunks=self._tar(files, headers))

    async def one(self, execution_id: str, path: str, caller: Caller) -> Download:
        """Return the contents of one file."""
        files, _ = await self._files(execution_id, caller)
        start = 0
        for file in files.listed:
            if file.path == path:
                return Download(size=file.size, chunks=self._part(files, start, file.size))
            start += file.size
        raise UnknownFile(
            f"{execution_id} has no output file {quote(path)}; its result lists the files it has"
        )

    async def _files(self, execution_id: str, caller: Caller) -> tuple[OutputFiles, Terminal]:
        execution = await self._executions.get(execution_id, caller)
        if execution.terminal is None:
            raise NotEnded(
                f"{execution_id} is {execution.status}; its output files are available after its end"
            )
        files = files_of(execution)
        if files is None:
            raise UnknownFile(
                f"{execution_id} was submitted without output_files; list the files to return there"
            )
        return files, execution.terminal

    async def _tar(self, files: OutputFiles, headers: Sequence[bytes]) -> AsyncIterator[bytes]:
        contents = _Contents(self._blobs, files.blob)
        for file, header in zip(files.listed, headers, strict=True):
            yield header
            async for data in contents.next(file.size):
                yield data
            yield bytes(_padding(file))
        yield TAR_END

    async def _part(self, files: OutputFiles, start: int, size: int) -> AsyncIterator[bytes]:
        contents = _Contents(self._blobs, files.blob)
        async for _ in contents.next(start):
            pass
        async for data in contents.next(size):
            yield data


class _Contents:
    """Reads a blob piece by piece."""

    def __init__(self, blobs: BlobStore, name: str | None) -> None:
        self._chunks = blobs.read(name) if name is not None else None
        self._name = name
        self._buffer = memoryview(b"")

    async def next(self, size: int) -> AsyncIterator[bytes]:
        """Yield the next `size` bytes."""
        while size:
            if not self._buffer:
                chunk = await anext(self._chunks, None) if self._chunks is not None else None
                if chunk is None:
                    raise Unavailable(f"the blob {self._name} is shorter than the files in its list")
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
