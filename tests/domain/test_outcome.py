"""The exception in the terminal event: read from stderr while the program prints, counted only with exit code 1."""

import pytest
from attrs import evolve

from pyexec.domain.crash import Crash
from pyexec.domain.events import Output, Terminal
from pyexec.domain.outcome import DISK_HINT, STDIN_HINT, RunOutcome, terminal_event
from pyexec.domain.output_log import Stream
from pyexec.services.active_runs import Run
from tests.events import LIMITS, SPEC, START, claimed, running, submitted

TRACEBACK = b'Traceback (most recent call last):\n  File "/work/pkg/run.py", line 3, in <module>\n'
MESSAGE = b"OSError: [Errno 101] Network is unreachable\n"


def ended(outcome: RunOutcome) -> Terminal:
    run = Run("e")
    run.record([evolve(submitted(), spec=evolve(SPEC, entrypoint="pkg/run.py")), claimed(), running()])
    run.write_output(Stream.SETUP, TRACEBACK + b"ValueError: setup\n")
    for at in range(len(TRACEBACK)):
        run.write_output(Stream.STDERR, TRACEBACK[at : at + 1])
        run.write_output(Stream.STDOUT, b"x\n")
    run.write_output(Stream.STDERR, MESSAGE + b"Exception ignored in: <function>\n")
    return terminal_event(
        outcome,
        spec=SPEC,
        output_max=1000,
        crash=run.traceback.finish() if run.traceback else None,
        output=Output(),
        files=None,
        at=START,
        nonce="n",
    )


async def test_the_exception_is_in_the_terminal_event() -> None:
    event = ended(RunOutcome(reason="exit", exit_code=1))
    assert (event.error_type, event.error_line) == ("OSError", 3)
    assert event.error.startswith("[Errno 101] Network is unreachable (the network is disabled")


@pytest.mark.parametrize(
    ("code", "signalled", "error"),
    [
        (0, False, None),
        (2, False, None),
        (139, False, None),
        (130, True, "the program was ended by signal 2 (SIGINT)"),
        (139, True, "the program was ended by signal 11 (SIGSEGV)"),
        (128 + 40, True, "the program was ended by signal 40"),
    ],
)
async def test_other_ends_have_no_exception(code: int, signalled: bool, error: str | None) -> None:
    event = ended(RunOutcome(reason="exit", exit_code=code, signalled=signalled))
    assert (event.exit_code, event.error_type, event.error, event.error_line) == (code, None, error, None)


@pytest.mark.parametrize("stdin", ["", "5\n"])
@pytest.mark.parametrize("session_id", [None, "ses_1"])
def test_a_run_without_standard_input_has_a_hint(stdin: str, session_id: str | None) -> None:
    event = terminal_event(
        RunOutcome(reason="exit", exit_code=1),
        spec=evolve(SPEC, stdin=stdin, session_id=session_id),
        output_max=1,
        crash=Crash(error_type="EOFError", error="EOF when reading a line", error_line=1),
        output=Output(),
        files=None,
        at=START,
        nonce="n",
    )
    hint = "" if stdin or session_id else f" {STDIN_HINT}"
    assert event.error == f"EOF when reading a line{hint}"


def test_an_end_names_the_limits_that_were_reached() -> None:
    def error_of(
        reason: str, code: int = 0, crash: Crash | None = None, reached: int | None = 64
    ) -> str | None:
        outcome = RunOutcome(reason=reason, exit_code=code, process_limit=reached)
        event = terminal_event(
            outcome,
            spec=evolve(SPEC, limits=evolve(LIMITS, cpu_seconds=2.5)),
            output_max=1,
            crash=crash,
            output=Output(),
            files=None,
            at=START,
            nonce="n",
        )
        return event.error

    reached = "reached the limit of 64 processes and threads"
    full = Crash(error_type="OSError", error="[Errno 28] No space left on device: 'x'", error_line=1)
    assert error_of("exit") is None
    assert error_of("exit", code=139) == f"the program {reached}"
    assert (
        error_of("exit", code=1, crash=full)
        == f"{full.error} {DISK_HINT.format(2048)} (the program {reached})"
    )
    assert error_of("cpu_limit", reached=None) == (
        "the program used more than 2.5 s of processor time and was stopped"
    )
    assert error_of("timeout") == f"the program ran longer than 300 s and was stopped; it {reached}"
    assert error_of("exit", code=1, crash=full, reached=None) == f"{full.error} {DISK_HINT.format(2048)}"
    assert error_of("disk_limit", reached=None) == (
        "the program's files in /work and /tmp took more than 2048 MiB and it was stopped"
    )


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        ("No module named 'requests'", "if it is a package, add it to the requirements: requirements_txt, "),
        ("No module named 'cv2'", "add the package opencv-python-headless to the requirements: "),
        ("No module named 'distutils'", "add the package setuptools to the requirements: "),
        ("No module named 'yaml'\nprinted at exit", "add the package PyYAML to the requirements: "),
        ("No module named 'PIL.nothing'", None),
        ("No module named 'main.py'; 'main' is not a package", None),
        ("No module named 'tkinter'", None),
        ("No module named '_private'", None),
        ("No module named 'urlib'. Did you mean: 'urllib'?", None),
        ("no plugin", None),
    ],
)
def test_a_missing_module_has_a_hint(error: str, hint: str | None) -> None:
    def error_of(crash: Crash, *, setup_allowed: bool = True) -> str | None:
        event = terminal_event(
            RunOutcome(reason="exit", exit_code=1),
            spec=SPEC,
            output_max=1,
            setup_allowed=setup_allowed,
            crash=crash,
            output=Output(),
            files=None,
            at=START,
            nonce="n",
        )
        return event.error

    crash = Crash(error_type="ModuleNotFoundError", error=error, error_line=1)
    text = error_of(crash)
    assert text is not None
    if hint is None:
        assert text == error
    else:
        assert text.startswith(f"{error} (the sandbox has no module ")
        assert hint in text
    assert error_of(crash, setup_allowed=False) == error
    assert error_of(evolve(crash, error_type="ValueError")) == error


@pytest.mark.parametrize(
    ("crash", "hint"),
    [
        (
            Crash(error_type="ModuleNotFoundError", error="No module named 'yaml'", error_line=1),
            "(the sandbox has no module yaml; add the package PyYAML to the requirements of a new session: open one "
            "with requirements_txt, or --requirements FILE)",
        ),
        (
            Crash(error_type="OSError", error="[Errno 101] Network is unreachable", error_line=1),
            "(the network is disabled in this session; open one with config.network_disabled: false, or --network)",
        ),
        (
            Crash(error_type="OSError", error="[Errno 28] No space left on device", error_line=1),
            "(files in /work and /tmp together may take 2048 MiB in this session; delete files, or open one with "
            "config.disk_mb, or --disk)",
        ),
    ],
)
def test_the_hints_of_a_cell_are_about_its_session(crash: Crash, hint: str) -> None:
    event = terminal_event(
        RunOutcome(reason="exit", exit_code=1),
        spec=evolve(SPEC, session_id="ses_1"),
        output_max=1,
        crash=crash,
        output=Output(),
        files=None,
        at=START,
        nonce="n",
    )
    assert event.error == f"{crash.error} {hint}"
