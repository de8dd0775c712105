"""Test the outcome of a run whose supervisor reports nothing: it is killed, too late, or it does not answer."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from attrs import define, evolve, field

from pyexec.domain.events import Usage
from pyexec.domain.outcome import RunOutcome
from pyexec.domain.output_files import FileLimits
from pyexec.domain.output_log import Stream
from pyexec.sandbox.protocol import Exited, Frame, OutputChunk, Ready
from pyexec.services import run_monitor
from pyexec.services.active_runs import Run
from pyexec.services.output_files import OutputFileLimits
from pyexec.services.run_monitor import OutputLimits, follow, monitor, wait_for_cpu_seconds
from tests.events import claimed, kill_requested, new_id, running, submitted

USAGE = Usage(cpu_seconds=0.5, peak_memory_bytes=7)
KILLED = Exited(
    reason="killed",
    exit_code=137,
    signalled=True,
    cpu_seconds=0.25,
    peak_memory_bytes=3,
    result_truncated=False,
    process_limit=None,
)


@define
class FakeSandbox:
    """A sandbox that sends these frames. Then it ends, unless it is `silent`."""

    sends: list[Frame] = field(factory=list)
    silent: bool = False
    out_of_memory: bool = False
    connected: bool = True
    answers_kills: bool = False
    killed: anyio.Event = field(factory=anyio.Event)
    engine_unreachable: bool = False
    engine_was_unreachable: bool = False

    async def frames(self) -> AsyncIterator[Frame]:
        for frame in self.sends:
            yield frame
        if self.silent:
            await self.killed.wait()
            if self.answers_kills:
                yield KILLED

    async def usage(self) -> Usage:
        return USAGE

    async def ran_out_of_memory(self) -> bool:
        return self.out_of_memory

    async def request_kill(self) -> bool:
        if self.answers_kills:
            self.killed.set()
        return self.connected

    async def kill(self) -> None:
        self.killed.set()

    async def check_engine(self) -> None:
        return


@pytest.fixture
async def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(run_monitor, "GRACE_SECONDS", 0.01)
    monkeypatch.setattr(run_monitor, "KILL_REPORT_SECONDS", 0.05)
    run = Run(new_id())
    first = submitted()
    limits = evolve(first.spec.limits, timeout_seconds=0.1)
    run.record([evolve(first, spec=evolve(first.spec, limits=limits)), claimed(), running()])
    return run


async def outcome_of(run: Run, sandbox: Any, output_bytes: int = 1000) -> RunOutcome:
    limits = OutputLimits(
        output_bytes=output_bytes,
        display_bytes=1000,
        files=OutputFileLimits(limits=FileLimits(bytes_max=1), spool_dir=Path()),
    )
    with anyio.fail_after(10):
        return await monitor(run, sandbox, lambda: follow(run, sandbox.frames(), limits), limits)


async def test_a_sandbox_that_the_kernel_killed_for_memory_is_out_of_memory(run: Run) -> None:
    assert (await outcome_of(run, FakeSandbox(out_of_memory=True))).reason == "out_of_memory"
    assert (await outcome_of(run, FakeSandbox())).reason == "broken"


async def test_a_timeout_that_the_supervisor_does_not_report_has_usage(run: Run) -> None:
    outcome = await outcome_of(run, FakeSandbox(silent=True))
    assert (outcome.reason, outcome.usage) == ("timeout", USAGE)


async def test_a_kill_that_the_supervisor_reports_has_its_usage(run: Run) -> None:
    run.record([kill_requested()])
    outcome = await outcome_of(run, FakeSandbox(silent=True, answers_kills=True))
    assert (outcome.reason, outcome.usage and outcome.usage.cpu_seconds) == ("killed", 0.25)


@pytest.mark.parametrize("connected", [True, False])
async def test_a_supervisor_that_ignores_a_kill_request_is_killed(run: Run, connected: bool) -> None:
    run.record([kill_requested()])
    outcome = await outcome_of(run, FakeSandbox(silent=True, connected=connected))
    assert (outcome.reason, outcome.usage) == ("killed", None)


async def test_too_many_switches_between_streams_exceed_the_output_limit(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_monitor, "STREAM_CHANGES_MAX", 100)
    turns = [OutputChunk(stream, b"x") for _ in range(60) for stream in (Stream.STDOUT, Stream.STDERR)]
    assert (await outcome_of(run, FakeSandbox(sends=turns[:100]))).reason == "broken"
    outcome = await outcome_of(run, FakeSandbox(sends=turns[:2]))
    assert outcome.reason == "output_limit"
    assert outcome.detail == "the program changed 100 times between stdout and stderr and was stopped"


@pytest.mark.parametrize("frames", [[1_000_000], [50_000] * 20])
async def test_other_tasks_run_while_much_output_arrives(run: Run, frames: list[int]) -> None:
    sizes = []

    async def read() -> None:
        while len(run.output_log) < 1_000_000:
            sizes.append(len(run.output_log))
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        chunks: list[Frame] = [OutputChunk(Stream.STDERR, b"\n" * size) for size in frames]
        await outcome_of(run, FakeSandbox(sends=chunks), 1_000_000)
    assert len(set(sizes)) > 5


async def test_a_kill_that_no_caller_requested_is_an_invalid_report(run: Run) -> None:
    assert (await outcome_of(run, FakeSandbox(sends=[KILLED]))).reason == "broken"


async def test_a_frame_that_no_running_program_has_ends_the_run(run: Run) -> None:
    """No limit would bound such frames."""
    outcome = await outcome_of(run, FakeSandbox(sends=[Ready("3.11")], silent=True))
    assert (outcome.reason, outcome.detail) == (
        "broken",
        "the sandbox sent a Ready frame while the program ran",
    )


@pytest.mark.parametrize(("share", "ends"), [(0.05, False), (0.9, True)])
async def test_a_share_of_the_elapsed_time_is_the_supervisors(
    monkeypatch: pytest.MonkeyPatch, share: float, ends: bool
) -> None:
    """The engine's counter includes the supervisor, which checks the limits of a program that only waits, too."""
    monkeypatch.setattr(run_monitor, "CPU_CHECK_SECONDS", 0.01)
    monkeypatch.setattr(run_monitor, "CPU_GRACE_SECONDS", 0.0)

    async def used() -> float:
        return 100 + share * anyio.current_time()

    with anyio.move_on_after(0.3) as scope:
        await wait_for_cpu_seconds(used, 0.001)
    assert scope.cancelled_caught is not ends
