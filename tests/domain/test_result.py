from datetime import timedelta

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from pyexec.domain.events import Event, FailureType, Usage
from pyexec.domain.execution import Status, fold
from pyexec.domain.output_files import OutputFile, OutputFiles, SkippedPath, SkippedPattern, SkipReason
from pyexec.domain.output_log import OutputLog, Stream
from pyexec.domain.result import SkippedFile, Timings, Truncated, files_of, result_of, summarize
from tests.events import (
    SPEC,
    START,
    claimed,
    failed,
    finished,
    killed,
    preparing,
    released,
    running,
    submitted,
)


def at(*milliseconds: float) -> list[object]:
    return [START + timedelta(milliseconds=moment) for moment in milliseconds]


def test_a_finished_run_has_everything() -> None:
    submit, claim, prepare, run, end = at(0, 5, 6, 25, 125)
    usage = Usage(cpu_seconds=0.1, peak_memory_bytes=9_000_000)
    word: list[Event] = [
        evolve(submitted(submit), spec=evolve(SPEC, entrypoint="proj/main.py")),
        claimed(at=claim),
        preparing(prepare),
        running(run),
        evolve(
            finished(1, end), error="bad", error_type="ValueError", error_line=3, result="42", usage=usage
        ),
    ]
    output_log = OutputLog()
    output_log.append(Stream.STDOUT, b"out")
    output_log.append(Stream.STDERR, b"err")
    result = result_of(fold("e", word), output_log)
    assert (result.execution_id, result.status, result.exit_code) == ("e", Status.COMPLETED, 1)
    assert result.entrypoint == "proj/main.py"
    assert (result.error, result.error_type, result.error_line) == ("bad", "ValueError", 3)
    assert (result.result, result.usage) == ("42", usage)
    assert (result.created_at, result.started_at, result.finished_at) == (submit, run, end)
    assert result.duration_ms == 125
    assert result.timings_ms == Timings(queue=5, setup=19, run=100)
    assert (result.stdout, result.stderr) == ("out", "err")
    assert result.truncated == Truncated(stdout=False, stderr=False)


def test_an_open_run_has_no_end() -> None:
    summary = summarize(fold("e", [submitted(), claimed(), running()]))
    assert summary.status is Status.RUNNING
    assert summary.started_at == START
    for name in ("finished_at", "duration_ms", "timings_ms", "usage", "exit_code", "error", "error_type"):
        assert getattr(summary, name) is None


def test_an_unclaimed_execution_spends_all_its_time_in_the_queue() -> None:
    submit, end = at(0, 70)
    word = [submitted(submit), evolve(failed(end), error_type=FailureType.QUEUE_TIMEOUT)]
    summary = summarize(fold("e", word))
    assert summary.timings_ms == Timings(queue=70, setup=0, run=0)
    assert (summary.status, summary.error_type) == (Status.FAILED, "queue_timeout")
    assert summary.started_at is None


def test_an_execution_that_failed_in_setup_has_no_run_time() -> None:
    submit, claim, prepare, end = at(0, 10, 15, 50)
    word = [submitted(submit), claimed(at=claim), preparing(prepare), failed(end)]
    assert summarize(fold("e", word)).timings_ms == Timings(queue=10, setup=35, run=0)


def test_a_run_without_setup_has_no_setup_time() -> None:
    submit, claim, run, end = at(0, 10, 15, 50)
    word = [submitted(submit), claimed(at=claim), running(run), finished(at=end)]
    assert summarize(fold("e", word)).timings_ms == Timings(queue=10, setup=0, run=35)


def test_a_released_run_waits_again() -> None:
    submit, claim, release, end = at(0, 10, 20, 50)
    word = [submitted(submit), claimed(at=claim), released(release), killed(end)]
    summary = summarize(fold("e", word))
    assert summary.timings_ms == Timings(queue=50, setup=0, run=0)
    assert summary.status is Status.KILLED
    assert (summary.error, summary.error_type, summary.exit_code) == (None, None, None)


def test_output_over_the_limit_is_marked_truncated() -> None:
    for kind in FailureType:
        word = [submitted(), claimed(), running(), evolve(failed(), error_type=kind)]
        limited = kind == "output_limit"
        for printed in ({Stream.STDOUT}, {Stream.STDERR}, set(Stream) - {Stream.SETUP}):
            output_log = OutputLog()
            for stream in printed:
                output_log.append(stream, b"x")
            cut = result_of(fold("e", word), output_log).truncated
            assert cut == Truncated(
                stdout=limited and Stream.STDOUT in printed, stderr=limited and Stream.STDERR in printed
            )


@given(st.lists(st.integers(-(10**6), 10**6), min_size=4, max_size=4))
def test_no_time_is_negative_though_clocks_differ(moments: list[int]) -> None:
    submit, claim, run, end = at(*moments)
    summary = summarize(fold("e", [submitted(submit), claimed(at=claim), running(run), finished(at=end)]))
    assert summary.duration_ms >= 0
    assert min(summary.timings_ms.queue, summary.timings_ms.setup, summary.timings_ms.run) >= 0


def test_a_result_has_files_only_if_they_were_requested() -> None:
    asked = evolve(submitted(), spec=evolve(SPEC, output_files=("*",)))
    brought = OutputFiles(listed=(OutputFile(path="a", size=1),), blob="b")
    start, end = [claimed(), running()], evolve(finished(), files=brought)
    assert files_of(fold("exe_1", [submitted(), *start, end])) is None
    assert files_of(fold("exe_1", [asked, *start])) is None
    assert files_of(fold("exe_1", [asked, *start, end])) == brought


def test_files_of_a_run_killed_while_running_are_truncated() -> None:
    asked = evolve(submitted(), spec=evolve(SPEC, output_files=("*",)))
    missing = files_of(fold("exe_1", [asked, claimed(), running(), killed()]))
    assert missing == OutputFiles(
        truncated=True,
        skipped_patterns=(SkippedPattern(number=0, reason=SkipReason.NOT_COLLECTED),),
    )
    assert files_of(fold("exe_1", [asked, killed()])) == OutputFiles()


def test_a_result_says_what_was_skipped_with_the_patterns_of_the_request() -> None:
    asked = evolve(submitted(), spec=evolve(SPEC, output_files=("/work/a", "./out/*.csv")))
    brought = OutputFiles(
        listed=(OutputFile(path="a", size=0),),
        skipped_paths=(SkippedPath(path="out/x.csv", reason=SkipReason.LINK_OUTSIDE),),
        skipped_patterns=(SkippedPattern(number=1, reason=SkipReason.TOO_MANY),),
        skipped_truncated=True,
    )
    end = evolve(finished(), files=brought)
    result = result_of(fold("exe_1", [asked, claimed(), running(), end]), OutputLog())
    assert result.files_skipped == (
        SkippedFile(pattern="./out/*.csv", reason=SkipReason.TOO_MANY),
        SkippedFile(path="out/x.csv", reason=SkipReason.LINK_OUTSIDE),
    )
    assert (result.files_skipped_truncated, result.files_truncated) == (True, None)
    end = evolve(finished(), files=OutputFiles())
    result = result_of(fold("exe_1", [asked, claimed(), running(), end]), OutputLog())
    assert (result.files_skipped, result.files_skipped_truncated) == (None, None)


def test_a_summary_cuts_long_texts() -> None:
    end = evolve(finished(1), error="e" * 4000, error_type="ValueError", result="r" * 200)
    execution = fold("e", [submitted(), claimed(), running(), end])
    summary = summarize(execution)
    assert summary.error == "e" * 199 + "…"
    assert summary.result == "r" * 200
    assert result_of(execution, OutputLog()).error == "e" * 4000
