"""Receive the output files of a run from its sandbox, check and spool them, and store them as one blob."""

import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import anyio
from attrs import define, evolve, field, frozen

from pyexec.domain.output_files import FileCheck, FileLimits, OutputFiles, SkipReason, missing_files
from pyexec.errors import SandboxBroken
from pyexec.ports import BlobStore
from pyexec.sandbox.protocol import FileChunk, FileHeader, FilesCollected, FileSkipped
from pyexec.sandbox.sandbox import Sandbox

logger = logging.getLogger(__name__)

RECEIVE_SECONDS = 30.0
"""The supervisor sends no further file after 20 seconds."""
SILENCE_SECONDS = 5.0
"""The supervisor searches for 2 seconds at most. If it sends nothing for this long, it is stuck."""
SPOOL_MEMORY_BYTES = 1024 * 1024
CHUNK_BYTES = 256 * 1024


@frozen(kw_only=True)
class OutputFileLimits:
    """Limits of the output files of a run, and the directory of the spool."""

    limits: FileLimits
    spool_dir: Path


@define(eq=False)
class OutputFileSpool:
    """The files of one run between its sandbox and the blob store. Large files lie in an unnamed file on disk."""

    _limits: OutputFileLimits
    _patterns: int
    _report: OutputFiles = field(init=False)
    """The report of the guest about files that it did not send."""
    _check: FileCheck = field(init=False)
    _spool: anyio.SpooledTemporaryFile[bytes] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._report = missing_files(self._patterns, SkipReason.TIMEOUT)
        self._check = FileCheck(self._limits.limits)
        self._spool = anyio.SpooledTemporaryFile(SPOOL_MEMORY_BYTES, dir=str(self._limits.spool_dir))

    async def receive(self, execution_id: str, sandbox: Sandbox) -> None:
        """Receive all files that the guest sends. An error drops the files and changes nothing else in the result."""
        try:
            with anyio.move_on_after(RECEIVE_SECONDS):
                await self._receive(sandbox)
        except (SandboxBroken, OSError) as error:
            logger.warning("output files of %s dropped: %s", execution_id, error)
            await self.close()

    async def _receive(self, sandbox: Sandbox) -> None:
        frames = sandbox.frames()
        while True:
            frame = None
            with anyio.move_on_after(SILENCE_SECONDS):
                frame = await anext(frames, None)
            if frame is None:
                return
            match frame:
                case FileHeader():
                    self._check.begin(frame.path, frame.size)
                case FileChunk():
                    self._check.feed(frame.data)
                    await self._spool.write(frame.data)
                case FileSkipped():
                    self._check.skip(frame.path, frame.reason)
                case FilesCollected():
                    self._report = self._reported(frame)
                    return
                case _:
                    raise SandboxBroken(f"unexpected {type(frame).__name__} frame between output files")

    def _reported(self, frame: FilesCollected) -> OutputFiles:
        numbers = {pattern.number for pattern in frame.skipped_patterns}
        if len(numbers) < len(frame.skipped_patterns) or not numbers <= set(range(self._patterns)):
            raise SandboxBroken("the report on the output files names patterns that are not in the request")
        return OutputFiles(
            truncated=frame.truncated,
            skipped_patterns=frame.skipped_patterns,
            skipped_truncated=frame.skipped_truncated,
        )

    async def store(self, blobs: BlobStore, name: str) -> OutputFiles:
        """Store all complete files as one blob. The returned list goes into the terminal event."""
        listed = self._check.complete()
        truncated = self._report.truncated or len(listed) < self._check.announced
        size = sum(file.size for file in listed)
        if size:
            await blobs.put(name, self._contents(size))
        return evolve(
            self._report,
            listed=listed,
            truncated=truncated,
            blob=name if size else None,
            skipped_paths=tuple(self._check.skipped),
        )

    async def _contents(self, size: int) -> AsyncIterator[bytes]:
        await self._spool.seek(0)
        while size:
            data = await self._spool.read(min(CHUNK_BYTES, size))
            size -= len(data)
            yield data

    async def close(self) -> None:
        """Drop the files, and free the space on disk.

        On a full disk, closing the file fails, because it writes the rest of a buffer first. It is closed all the
        same."""
        self._check, self._report = FileCheck(self._limits.limits), missing_files(self._patterns)
        with suppress(OSError):
            await self._spool.aclose()
