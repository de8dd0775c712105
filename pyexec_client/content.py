"""The contents of a file to upload: bytes, a path, an open file or a stream."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from pathlib import Path
from typing import BinaryIO

from anyio import to_thread
from attrs import define, field

from .arguments import chunk_of_bytes, wrong_type

_CHUNK_BYTES = 256 * 1024

#: Bytes, the path of a file, an open binary file, or a stream of chunks.
FileData = bytes | os.PathLike[str] | BinaryIO | AsyncIterable[bytes]


@define
class Content:
    """The body of a request. A `replayable` one can be sent again. `error` is set if reading it fails."""

    _produce: Callable[[], AsyncIterator[bytes]]
    replayable: bool
    error: Exception | None = field(default=None, init=False)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the bytes, in chunks."""
        self.error = None
        # aiohttp reports any failure of a body as a lost connection, so keep the cause for the caller.
        try:
            async for chunk in self._produce():
                yield chunk_of_bytes(chunk)
        except Exception as error:
            self.error = error
            raise


def content(data: FileData) -> Content:
    """Return the contents to send. Raise FileNotFoundError if the path does not exist."""
    if isinstance(data, bytes):
        return Content(lambda: _from_memory(data), replayable=True)
    if isinstance(data, os.PathLike):
        path = Path(data)
        path.stat()
        return Content(lambda: _from_path(path), replayable=True)
    if isinstance(data, AsyncIterable):
        return Content(lambda: aiter(data), replayable=False)
    if hasattr(data, "read"):
        return Content(lambda: _from_file(data), replayable=False)
    raise wrong_type("data", "bytes, a path, a binary file or a stream of bytes", data)


async def _from_memory(data: bytes) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(data), _CHUNK_BYTES):
        yield data[start : start + _CHUNK_BYTES]


async def _from_path(path: Path) -> AsyncGenerator[bytes, None]:
    file = await to_thread.run_sync(lambda: path.open("rb", buffering=0))
    with file:
        while chunk := await to_thread.run_sync(file.read, _CHUNK_BYTES):
            yield chunk


async def _from_file(file: BinaryIO) -> AsyncGenerator[bytes, None]:
    while chunk := await to_thread.run_sync(file.read, _CHUNK_BYTES):
        yield chunk
