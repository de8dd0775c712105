"""The output of a setup that failed is printed exactly once."""

import base64

import pytest
from attrs import evolve

from tests.support.canned import Request, canned
from tests.support.cases import sampled

SHOWN = b"$ sh install\nbegin\nerror: no\n  such package\n"
REASON = "pre_commands[0] failed with exit code 3"
MESSAGE = f"python-executor: execution failed (setup_failed): {REASON}\n".encode()
SUBMITTED = ("submitted", {"execution_id": "exe_1"})
PREPARING = ("preparing", {"execution_id": "exe_1"})
RUNNING = ("running", {"execution_id": "exe_1"})


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def failed(error: str) -> tuple[str, dict]:
    result = {"execution_id": "exe_1", "status": "failed", "error_type": "setup_failed", "exit_code": 3}
    return "failed", result | {"error": error, "stdout": "", "stderr": SHOWN.decode()}


def server(*events: tuple[str, dict]):
    """Return a server that answers every request with these events, or with the output of the setup."""

    def answer(request: Request) -> None:
        if request.command == "POST":
            request.body()
        if "/logs" in request.path:
            request.say("text/plain", SHOWN if "stderr" in request.path else b"")
        else:
            request.say_events(*events)

    return canned(answer)


@pytest.mark.parametrize("flags", [(), ("-v",), ("-q",), ("follow",), ("follow", "--tail"), ("-q", "follow")])
@sampled("sent_as_stderr", [20, 0, len(SHOWN)])
def test_the_output_is_printed_once(lone_program, flags, sent_as_stderr):
    # When the setup has failed, the server sends the rest of its output as stderr.
    border = len(SHOWN) - sent_as_stderr
    pieces = [
        ("setup", {"data": encoded(SHOWN[:border])}),
        ("output", {"stream": "stderr", "data": encoded(SHOWN[border:])}),
    ]
    lone_program.file("main.py", "pass")
    arguments = (*flags, "exe_1") if "follow" in flags else (*flags, "main.py")
    events = (SUBMITTED, PREPARING, *pieces, failed(f"{REASON}: error: no such package"))
    with server(*events) as url:
        done = evolve(lone_program, server=url).run(*arguments)
    assert done.returncode == 125
    assert done.stdout == b""
    assert done.stderr.count(SHOWN) == 1
    assert done.stderr.count(b"such package") == 1
    assert done.stderr.endswith(MESSAGE)


def test_a_reason_that_was_not_printed_is_kept(lone_program):
    lone_program.file("main.py", "pass")
    with server(SUBMITTED, PREPARING, failed(f"{REASON}: it was killed; the limit is 1 MiB")) as url:
        done = evolve(lone_program, server=url).run("main.py")
    assert done.stderr == SHOWN + MESSAGE[:-1] + b": it was killed; the limit is 1 MiB\n"


@pytest.mark.parametrize("flags", [(), ("--tail",)])
def test_follow_prints_the_error_output_of_a_program_after_a_setup(lone_program, flags):
    ended = {
        "execution_id": "exe_1",
        "status": "completed",
        "exit_code": 0,
        "stdout": "",
        "stderr": "its own",
    }
    events = (
        *(SUBMITTED, PREPARING, ("setup", {"data": encoded(b"setup\n")}), RUNNING),
        ("output", {"stream": "stderr", "data": encoded(SHOWN)}),
        ("finished", ended),
    )
    with server(*events) as url:
        done = evolve(lone_program, server=url).run("follow", "exe_1", *flags)
    assert done.stderr.count(b"setup\n") == 1
    assert done.stderr.count(SHOWN) == 1
