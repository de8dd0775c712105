"""Test that a supervisor which sends no more output files does not hold a slot."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from pyexec.domain.output_files import FileLimits, SkipReason
from pyexec.sandbox.protocol import FileChunk, FileHeader, Frame
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
