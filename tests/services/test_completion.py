"""Every execution ends, also if the blob store fails: what fits into the event is kept, the rest is marked."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from pyexec.domain.events import Event, FailureType, Finished
from pyexec.domain.execution import fold
from pyexec.domain.outcome import RunOutcome
from pyexec.domain.output_files import FileLimits
from pyexec.domain.output_log import Stream
from pyexec.domain.result import Result, result_of
from pyexec.errors import Unavailable
from pyexec.services import completion
from pyexec.services.active_runs import Run
from pyexec.services.completion import CompletionWriter
from pyexec.services.event_log import CorruptLogReporter
from pyexec.services.output_files import OutputFileLimits, OutputFileSpool
from pyexec.services.output_store import INLINE_BYTES_MAX, load_output
from tests.events import claimed, kill_requested, new_id, running, submitted
from tests.services.failing_blobs import FailingBlobs
from tests.services.world import InlineLog

BOUND_SECONDS = 10


class FlakyLog(InlineLog):
    away = False

    async def read(self, execution_id: str, after: int = 0) -> Sequence[Event]:
        if self.away:
            raise Unavailable("the log is away")
        return await super().read(execution_id, after)


@pytest.fixture
async def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FlakyLog]:
    monkeypatch.setattr(completion, "STORE_SECONDS", 0.3)
    monkeypatch.setattr(completion, "RETRY_SECONDS", 0.02)
    log = FlakyLog.at(tmp_path)
    yield log
    await log.close()


def writer_of(log: InlineLog, blobs: FailingBlobs) -> CompletionWriter:
    return CompletionWriter(
        log=log,
        blobs=blobs,
        replica="replica-1",
        output_bytes_max=10 * 1024 * 1024,
        corrupt_logs=CorruptLogReporter(),
    )


async def a_run(log: InlineLog, *events: Event) -> Run:
    run = Run(new_id())
    run.record([submitted(), claimed(), *events])
    await log.append(run.id, 0, list(run.events))
    return run


async def result_in(log: InlineLog, blobs: FailingBlobs, run: Run) -> Result:
    execution = fold(run.id, await log.read(run.id))
    return result_of(execution, await load_output(blobs, execution))


@pytest.mark.parametrize("hangs", [False, True])
@pytest.mark.parametrize("kills", [False, True])
async def test_a_failing_blob_store_does_not_keep_a_run_from_ending(
    log: FlakyLog, hangs: bool, kills: bool
) -> None:
    blobs = FailingBlobs(hangs=hangs)
    run = await a_run(log, running(), *([kill_requested()] if kills else []))
    run.write_output(Stream.STDERR, b"first\n")
    run.write_output(Stream.STDOUT, b"x" * (3 * INLINE_BYTES_MAX))
    with anyio.fail_after(BOUND_SECONDS):
        await writer_of(log, blobs).end(run, RunOutcome(reason="exit", exit_code=3))
    result = await result_in(log, blobs, run)
    assert (result.status, result.exit_code) == ("completed", 3)
    assert result.stderr == "first\n"
    assert INLINE_BYTES_MAX - 100 < len(result.stdout) < INLINE_BYTES_MAX
    assert (result.truncated.stdout, result.truncated.stderr) == (True, False)
    assert run.inactive.is_set()


async def test_a_completely_lost_stream_is_marked_truncated(log: FlakyLog) -> None:
    blobs = FailingBlobs()
    run = await a_run(log, running())
    run.write_output(Stream.STDOUT, b"x" * (2 * INLINE_BYTES_MAX))
    run.write_output(Stream.STDERR, b"last\n")
    await writer_of(log, blobs).end(run, RunOutcome(reason="exit"))
    result = await result_in(log, blobs, run)
    assert (result.stderr, result.truncated.stdout, result.truncated.stderr) == ("", True, True)


class ClosingSpool(OutputFileSpool):
    closed = False

    async def close(self) -> None:
        self.closed = True
        await super().close()


async def test_output_files_leave_the_disk_before_the_end_is_written(log: FlakyLog, tmp_path: Path) -> None:
    """The event log may be on the same disk."""
    run = await a_run(log, running())
    limits = OutputFileLimits(limits=FileLimits(bytes_max=1), spool_dir=tmp_path)
    spool = run.output_files = ClosingSpool(limits, 0)
    closed: list[bool] = []
    write = log.append

    async def append(*args: Any, **options: Any) -> None:
        closed.append(spool.closed)
        await write(*args, **options)

    log.append = append  # type: ignore[method-assign]
    await writer_of(log, FailingBlobs()).end(run, RunOutcome(reason="exit"))
    assert closed == [True]


async def test_small_output_does_not_need_the_blob_store(log: FlakyLog) -> None:
    blobs = FailingBlobs(hangs=True)
    run = await a_run(log, running())
    run.write_output(Stream.STDOUT, b"x" * 1000)
    await writer_of(log, blobs).end(run, RunOutcome(reason="exit"))
    result = await result_in(log, blobs, run)
    assert (len(result.stdout), result.truncated.stdout) == (1000, False)


async def test_a_failed_setup_with_much_output_ends_too(log: FlakyLog) -> None:
    blobs = FailingBlobs()
    run = await a_run(log)
    run.write_output(Stream.SETUP, b"x" * (2 * INLINE_BYTES_MAX))
    with anyio.fail_after(BOUND_SECONDS):
        await writer_of(log, blobs).fail(run, FailureType.SETUP_FAILED, "pip failed", exit_code=1)
    result = await result_in(log, blobs, run)
    assert (result.status, result.error_type, result.truncated.stderr) == ("failed", "setup_failed", True)


async def test_an_outage_of_log_and_blobs_together_loses_nothing(log: FlakyLog) -> None:
    """The end cannot be written during such an outage anyway."""
    blobs = FailingBlobs()
    run = await a_run(log, running())
    run.write_output(Stream.STDOUT, b"x" * (2 * INLINE_BYTES_MAX))
    log.away = True
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(writer_of(log, blobs).end, run, RunOutcome(reason="exit"), name="the end")
        await anyio.sleep(1)
        log.away, blobs.broken = False, False
    result = await result_in(log, blobs, run)
    assert isinstance(run.events[-1], Finished)
    assert (len(result.stdout), result.truncated.stdout) == (2 * INLINE_BYTES_MAX, False)
