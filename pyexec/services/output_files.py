"""The files that a sandbox hands over after its program's end: checked as they come, spooled, then stored."""

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
from attrs import define, field, frozen

from pyexec.domain.output_files import FileCheck, FileLimits, OutputFiles
from pyexec.errors import SandboxBroken
from pyexec.ports import BlobStore
from pyexec.sandbox.protocol import Collected, FileBegins, FileData
from pyexec.sandbox.sandbox import Sandbox

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 30.0
"""The supervisor begins nothing more after twenty."""
SPOOL_MEMORY_BYTES = 1024 * 1024
CHUNK_BYTES = 256 * 1024


@frozen(kw_only=True)
class OutputFileLimits:
    """What a run may bring back, and the directory where it is spooled meanwhile."""

    limits: FileLimits
    spool_dir: Path


@define(eq=False)
class OutputFileSpool:
    """The files of one run, between its sandbox and the blob store. What is large lies on disk, under no name."""

    _room: OutputFileLimits
    _truncated: bool = True
    """Until the sandbox has said that it left out nothing."""
    _check: FileCheck = field(init=False)
    _spool: anyio.SpooledTemporaryFile[bytes] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._check = FileCheck(self._room.limits)
        self._spool = anyio.SpooledTemporaryFile(SPOOL_MEMORY_BYTES, dir=str(self._room.spool_dir))

    async def take(self, execution_id: str, sandbox: Sandbox) -> None:
        """All that the sandbox sends. What goes wrong costs these files, and nothing else."""
        try:
            with anyio.move_on_after(PATIENCE_SECONDS):
                await self._take(sandbox)
        except (SandboxBroken, OSError) as error:
            logger.warning("the files of %s are dropped: %s", execution_id, error)
            self._check, self._truncated = FileCheck(self._room.limits), True

    async def _take(self, sandbox: Sandbox) -> None:
        async for frame in sandbox.frames():
            match frame:
                case FileBegins():
                    self._check.begin(frame.path, frame.size)
                case FileData():
                    self._check.feed(frame.data)
                    await self._spool.write(frame.data)
                case Collected():
                    self._truncated = frame.truncated
                    return
                case _:
                    raise SandboxBroken(f"{type(frame).__name__} came among files")

    async def store(self, blobs: BlobStore, name: str) -> OutputFiles:
        """Puts what is whole where it belongs, durably; the answer goes into the terminal event."""
        listed = self._check.complete()
        truncated = self._truncated or len(listed) < self._check.announced
        size = sum(file.size for file in listed)
        if size:
            await blobs.put(name, self._contents(size))
        return OutputFiles(listed=listed, truncated=truncated, blob=name if size else None)

    async def _contents(self, size: int) -> AsyncIterator[bytes]:
        await self._spool.seek(0)
        while size:
            data = await self._spool.read(min(CHUNK_BYTES, size))
            size -= len(data)
            yield data

    async def close(self) -> None:
        """Leaves nothing on disk."""
        await self._spool.aclose()
