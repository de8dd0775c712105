"""Control characters of servers, packages and programs reach no terminal, except in a program's own output."""

import base64
import json

import pytest
from attrs import evolve

from tests.support.canned import Request, canned

EVIL = "\x1b]0;owned\x07\x9b31m\r\x7f\u202e\u061c é"
SAFE = "\\x1b]0;owned\\x07\\x9b31m\\x0d\\x7f\\u202e\\u061c é"
IN_JSON = "\\u001b]0;owned\\u0007\\u009b31m\\r\\u007f\\u202e\\u061c é"
SUBMITTED = ("submitted", {"execution_id": "exe_1"})
RESULT = {"execution_id": "exe_1", "status": "failed", "stdout": "", "stderr": "", "error_type": "internal"}
STARTED = "2026-01-01T00:00:00.000000Z"


def ran(program, *arguments: str, answer) -> tuple[str, str]:
    def respond(request: Request) -> None:
        if request.command == "POST":
            request.body()
        answer(request)

    with canned(respond) as url:
        done = evolve(program, server=url).run(*arguments, stdin=b"1")
    return done.stdout.decode(), done.stderr.decode()


def events(result: dict, *before: tuple[str, dict]):
    return lambda request: request.say_events(SUBMITTED, *before, ("failed", RESULT | result))


def chunks(name: str, text: str, **more: str) -> list[tuple[str, dict]]:
    """Return one event a byte."""
    return [
        (name, {**more, "data": base64.b64encode(bytes([byte])).decode()}) for byte in f"{text}\n".encode()
    ]


def test_errors_and_file_names_are_escaped(lone_program):
    result = {
        "error": f"bad {EVIL}",
        "files_skipped": [{"path": EVIL, "reason": EVIL}],
        "started_at": STARTED,
    }
    _, stderr = ran(lone_program, answer=events(result))
    assert f"bad {SAFE}\n" in stderr
    assert f"skipped '{SAFE}': {SAFE}\n" in stderr
    assert "\x1b" not in stderr


@pytest.mark.parametrize("arguments", [("-v",), ("follow", "exe_1"), ("follow", "--tail", "exe_1")])
def test_the_output_of_a_setup_is_escaped(lone_program, arguments):
    preparing = ("preparing", {"execution_id": "exe_1"})
    answer = events({"stderr": f"{EVIL}\n"}, preparing, *chunks("setup", EVIL))
    _, stderr = ran(lone_program, *arguments, answer=answer)
    assert stderr.count(SAFE) == 1
    assert "\x1b" not in stderr


def test_the_stderr_of_a_result_without_a_start_is_escaped(lone_program):
    _, stderr = ran(lone_program, answer=events({"stderr": f"{EVIL}\n"}))
    assert f"{SAFE}\n" in stderr
    assert "\x1b" not in stderr


def test_output_of_the_program_is_not_changed(lone_program):
    running = ("running", {"execution_id": "exe_1"})
    output = chunks("output", EVIL, stream="stdout") + chunks("output", EVIL, stream="stderr")
    answer = events({"error": "no", "started_at": STARTED}, running, *output)
    stdout, stderr = ran(lone_program, answer=answer)
    assert stdout == f"{EVIL}\n"
    assert stderr.startswith(f"{EVIL}\n")


def test_json_is_escaped(lone_program):
    stdout, _ = ran(lone_program, "run", "--json", answer=events({"error": EVIL, "started_at": STARTED}))
    assert f'"error": "{IN_JSON}"' in stdout
    assert json.loads(stdout)["error"] == EVIL


def test_a_list_is_escaped(lone_program):
    page = {"executions": [RESULT | {"execution_id": EVIL, "created_at": STARTED}], "next_cursor": None}

    def answer(request: Request) -> None:
        request.say("application/json", json.dumps(page).encode())

    stdout, _ = ran(lone_program, "list", answer=answer)
    assert SAFE in stdout
    stdout, _ = ran(lone_program, "list", "--json", answer=answer)
    assert f'"execution_id": "{IN_JSON}"' in stdout


def test_an_error_response_is_escaped(lone_program):
    def answer(request: Request) -> None:
        request.say("application/json", json.dumps({"error": EVIL, "code": "invalid_request"}).encode(), 400)

    _, stderr = ran(lone_program, answer=answer)
    assert stderr == f"python-executor: request rejected by the server: {SAFE}\n"
