"""A note says that standard input is ignored if it has data that no argument uses. Nothing is read from it."""

import json
import os
import pty
from collections.abc import Iterator

import pytest
from attrs import evolve

from tests.cli.conftest import Program
from tests.support.canned import Request, canned
from tests.support.cases import sampled

NOTE = b"python-executor: ignoring standard input: --stdin - passes it to the program\n"
ENDED = {"execution_id": "exe_1", "status": "completed", "exit_code": 0, "stdout": "", "stderr": ""}
SUBMITTED = ("submitted", {"execution_id": "exe_1"})


def answer(request: Request) -> None:
    length = request.headers["Content-Length"]
    if length:
        request.rfile.read(int(length))
    else:
        request.body()
    if request.path.endswith("/sync"):
        request.say_events(SUBMITTED, ("finished", ENDED))
    else:
        request.say("application/json", json.dumps(ENDED).encode(), 202 if "async" in request.path else 200)


@pytest.fixture
def program(lone_program: Program) -> Iterator[Program]:
    """A program with a predefined server, and an input for each kind of argument."""
    lone_program.file("main.py", "pass")
    lone_program.file("project/main.py", "pass")
    lone_program.file("requirements.txt", "six")
    with canned(answer) as url:
        yield evolve(lone_program, server=url)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    try:
        yield reader, writer
    finally:
        os.close(reader)
        os.close(writer)


@sampled(
    "arguments",
    [
        ("main.py",),
        ("eval", "1", "--requirements", "requirements.txt"),
        ("submit", "project"),
        ("--file", "main.py", "--stdin", "requirements.txt"),
        ("--async", "main.py", "--", "-"),
        ("--json", "main.py"),
    ],
    every=2,
)
def test_unused_data_in_a_pipe_is_noted_and_not_read(program, pipe, arguments):
    reader, writer = pipe
    os.write(writer, b"data\n")
    done = program.run(*arguments, stdin=reader)
    assert (done.returncode, done.stderr) == (0, NOTE)
    assert os.read(reader, 100) == b"data\n"


def test_unused_data_in_a_file_is_noted(program):
    for line in ("$P main.py <requirements.txt", "$P eval 1 <requirements.txt"):
        done = program.shell(line)
        assert (done.returncode, done.stderr) == (0, NOTE)


def test_data_that_arrives_during_the_run_is_noted(lone_program, pipe):
    reader, writer = pipe

    def write_and_answer(request: Request) -> None:
        os.write(writer, b"data")
        answer(request)

    lone_program.file("main.py", "pass")
    with canned(write_and_answer) as url:
        assert lone_program.run("main.py", "--server", url, stdin=reader).stderr == NOTE


def test_a_loop_keeps_its_input(program):
    done = program.shell("printf '1\\n2\\n' | while read -r line; do $P main.py && echo $line; done")
    assert (done.stdout, done.stderr) == (b"1\n2\n", NOTE)


@sampled(
    "line",
    [
        "echo pass | $P --stdin - main.py",
        "echo 6 | $P eval -",
        "$P /dev/stdin <main.py",
        "$P --requirements /dev/stdin main.py <requirements.txt",
        "echo pass | $P -q main.py",
        "$P main.py </dev/null",
        "$P main.py </dev/zero",
        "$P main.py <&-",
        ": | $P main.py",
        "(read -r _; $P main.py) <requirements.txt",
    ],
    every=2,
)
def test_nothing_is_noted_if_the_input_is_used_or_empty(program, line):
    done = program.shell(line)
    assert (done.returncode, done.stderr) == (0, b"")


def test_an_open_pipe_or_a_terminal_does_not_block(program, pipe):
    assert program.run("main.py", stdin=pipe[0]).stderr == b""
    controller, terminal = pty.openpty()
    try:
        os.write(controller, b"typed ahead\n")
        assert program.run("main.py", stdin=terminal).stderr == b""
    finally:
        os.close(controller)
        os.close(terminal)


def test_nothing_is_noted_after_an_error(program):
    done = program.run("main.py", "--server", "http://127.0.0.1:1", stdin=b"data")
    assert done.returncode == 125
    assert NOTE not in done.stderr
