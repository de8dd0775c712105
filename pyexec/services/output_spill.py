"""Move the output of an ended run from memory to disk while a slow client still reads it.

A client that waits for its run, or follows it, is answered from memory. It may read a few KB/s, and the number of such
clients has no limit."""

import logging
import os
import tempfile
import weakref
from collections import deque
from pathlib import Path
from typing import IO

import anyio
import anyio.to_thread
from attrs import define, field, frozen

from pyexec.aio import Broadcast
from pyexec.domain.output_log import OutputLog

logger = logging.getLogger(__name__)

IN_MEMORY_SECONDS = 2.0
"""How long an output stays in memory after its run. Most clients have read it by then."""
IN_MEMORY_BYTES = 256 * 1024
"""An output of at most this size always stays in memory."""
WRITE_BYTES = 1024 * 1024


@frozen
class FileBytes:
    """The bytes of an unnamed file, which the kernel deletes when this object closes it.

    Reads are synchronous: readers take 64 KiB or one display at a time, usually from the page cache."""

    _file: IO[bytes]
    _size: int

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self._size)
        return os.pread(self._file.fileno(), max(0, stop - start), start)

    def __del__(self) -> None:
        self._file.close()


@define
class OutputSpill:
    """Moves outputs to unnamed files in `directory`, `in_memory_seconds` after the end of their runs.

    `run` must be running for that. If the disk is full, an output stays in memory."""

    directory: Path
    in_memory_seconds: float = IN_MEMORY_SECONDS
    _watched: deque[tuple[float, weakref.ref[OutputLog]]] = field(factory=deque, init=False)
    """When to move each output, if something still refers to it then. The earliest time comes first."""
    _added: Broadcast = field(factory=Broadcast, init=False)

    def watch(self, output_log: OutputLog) -> None:
        """Plan the move of the output of a run that has just ended."""
        if len(output_log) > IN_MEMORY_BYTES:
            due = anyio.current_time() + self.in_memory_seconds
            self._watched.append((due, weakref.ref(output_log)))
            self._added.notify_all()

    async def run(self) -> None:
        """Move outputs until cancelled."""
        while True:
            while not self._watched:
                await self._added.wait()
            due, watched = self._watched.popleft()
            await anyio.sleep_until(due)
            await self._move(watched)

    async def _move(self, watched: "weakref.ref[OutputLog]") -> None:
        output_log = watched()
        if output_log is None:
            return
        try:
            stored = await anyio.to_thread.run_sync(self._write, output_log)
        except OSError as error:
            logger.warning("moving an output to %s failed; it stays in memory: %s", self.directory, error)
            return
        if len(stored) == len(output_log):  # else it has grown in the meantime
            output_log.move_to(stored)

    def _write(self, output_log: OutputLog) -> FileBytes:
        file = tempfile.TemporaryFile(dir=self.directory)  # noqa: SIM115 FileBytes closes it
        try:
            size = sum(file.write(chunk) for chunk in output_log.chunks(WRITE_BYTES))
            file.flush()
        except BaseException:
            file.close()
            raise
        return FileBytes(file, size)
