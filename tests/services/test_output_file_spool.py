"""Test that neither a supervisor which sends no more output files nor a full disk holds a slot."""

import os
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from pyexec.adapters.blobs.file_store import FileBlobs
from pyexec.domain.output_files import FileLimits, SkipReason
from pyexec.sandbox.protocol import FileChunk, FileHeader, FilesCollected, Frame
from pyexec.services import output_files
from pyexec.services.output_files import OutputFileLimits, OutputFileSpool


class StuckSandbox:
    async def frames(self) -> AsyncIterator[Frame]:
        yield FileHeader("a", 1)
        yield FileChunk(b"x")
        yield FileHeader("b", 1)
        await anyio.sleep_forever()


async def test_a_supervisor_that_is_silent_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output_files, "SILENCE_SECONDS", 0.01)
    stuck: Any = StuckSandbox()
    spool = OutputFileSpool(OutputFileLimits(limits=FileLimits(bytes_max=10), spool_dir=tmp_path), 1)
    with anyio.fail_after(5):
        await spool.receive("exe_1", stuck)
    assert [file.path for file in spool._check.complete()] == ["a"]
    assert [pattern.reason for pattern in spool._report.skipped_patterns] == [SkipReason.TIMEOUT]
    await spool.close()


class Sandbox:
    """Sends files of 2 MB and of one byte, and ends."""

    async def frames(self) -> AsyncIterator[Frame]:
        yield FileHeader("a", 2_000_000)
        for _ in range(200):
            yield FileChunk(bytes(10_000))
        yield FileHeader("b", 1)
        yield FileChunk(b"x")
        yield FilesCollected(truncated=False)


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def deleted_files(folder: Path) -> list[str]:
    """Return the open files in a folder that have no name."""
    descriptors = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    targets = [os.readlink(path) for path in descriptors if os.path.lexists(path)]
    return [target for target in targets if target.startswith(str(folder)) and "deleted" in target]


async def test_a_full_disk_drops_the_files_and_frees_their_space(tmp_path: Path) -> None:
    """Otherwise the event log, on the same disk, could not take the end of the execution."""
    sandbox: Any = Sandbox()
    spool = OutputFileSpool(OutputFileLimits(limits=FileLimits(bytes_max=3_000_000), spool_dir=tmp_path), 1)
    with full_disk(1_500_000):
        await spool.receive("exe_1", sandbox)
        assert deleted_files(tmp_path) == []
        stored = await spool.store(FileBlobs(tmp_path / "blobs"), "name")
        await spool.close()
    assert (stored.truncated, stored.blob, stored.listed) == (True, None, ())
    assert [pattern.reason for pattern in stored.skipped_patterns] == [SkipReason.NOT_COLLECTED]
