"""An archive on this machine's disk, while what it is to run in is made ready."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

import anyio
from anyio import AsyncFile

CHUNK_BYTES = 256 * 1024


class Spool:
    """A file without a name: it is gone with the process at the latest. `close` it once."""

    def __init__(self, file: AsyncFile[bytes], stack: AsyncExitStack) -> None:
        self._file = file
        self._stack = stack

    @classmethod
    async def fill(cls, folder: Path, chunks: AsyncIterator[bytes]) -> Self:
        """Everything that `chunks` yields; nothing is left when that raises."""
        async with AsyncExitStack() as stack:
            file = await stack.enter_async_context(anyio.TemporaryFile(dir=str(folder)))
            async for chunk in chunks:
                await file.write(chunk)
            return cls(file, stack.pop_all())
        raise AssertionError("the stack swallows nothing")

    async def read(self) -> AsyncIterator[bytes]:
        """The bytes in order, from the first on."""
        await self._file.seek(0)
        while chunk := await self._file.read(CHUNK_BYTES):
            yield chunk

    async def close(self) -> None:
        """Gives the space back."""
        await self._stack.aclose()
