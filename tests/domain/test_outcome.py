"""The exception in the terminal event: read from stderr while the program prints, counted only with exit code 1."""

import pytest
from attrs import evolve

from pyexec.domain.events import Output, Terminal
from pyexec.domain.outcome import RunOutcome, terminal_event
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
        limits=LIMITS,
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


@pytest.mark.parametrize(("code", "signalled"), [(0, False), (2, False), (130, True), (1, True)])
async def test_another_end_has_no_exception(code: int, signalled: bool) -> None:
    event = ended(RunOutcome(reason="exit", exit_code=code, signalled=signalled))
    assert (event.exit_code, event.error_type, event.error, event.error_line) == (code, None, None, None)
