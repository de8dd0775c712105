"""Test that an output in memory moves to disk while a slow reader reads it."""

import gc
import os
from pathlib import Path

import anyio
import pytest

from pyexec.domain.output_log import OutputLog, Stream
from pyexec.services.active_runs import ActiveRuns, Run
from pyexec.services.output_spill import IN_MEMORY_BYTES, FileBytes, OutputSpill
from tests.events import claimed, new_id, submitted
from tests.support.api import pause

SIZE = 3 * IN_MEMORY_BYTES + 1


def ended(runs: ActiveRuns, size: int) -> OutputLog:
    run = Run(new_id())
    run.record([submitted(), claimed()])
    runs.add(run)
    run.write_output(Stream.STDOUT, b"x" * size)
    runs.remove(run)
    return run.output_log


async def test_an_output_that_is_in_use_moves_to_disk(tmp_path: Path) -> None:
    spill = OutputSpill(tmp_path, in_memory_seconds=0.01)
    runs = ActiveRuns(on_remove=spill.watch)
    large, small = ended(runs, SIZE), ended(runs, IN_MEMORY_BYTES)
    reading = large.pieces({Stream.STDOUT})
    first = next(reading)
    ended(runs, SIZE)  # without a reader
    gc.collect()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(spill.run, name="spill")
        with anyio.fail_after(5):
            while not isinstance(large._data, FileBytes):
                await pause()
        assert len(first + b"".join(reading)) == SIZE
        assert isinstance(small._data, bytearray)
        tasks.cancel_scope.cancel()
    assert os.listdir(tmp_path) == []


async def test_an_output_stays_in_memory_if_the_disk_cannot_take_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spill = OutputSpill(tmp_path / "missing", in_memory_seconds=0)
    runs = ActiveRuns(on_remove=spill.watch)
    large = ended(runs, SIZE)
    with anyio.move_on_after(0.2):
        await spill.run()
    assert "stays in memory" in caplog.text
    assert len(large.bytes_of(Stream.STDOUT)) == SIZE
