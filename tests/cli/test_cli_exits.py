"""Test exit codes and error messages."""

import json

import pytest
from attrs import evolve

from tests.support.canned import Request, canned
from tests.support.cases import sampled


@sampled(
    ("code", "exit_code"),
    [
        ("pass", 0),
        ("raise SystemExit(3)", 3),
        ("raise SystemExit(255)", 255),
        ("raise SystemExit(256)", 0),
        ("1 / 0", 1),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)", 128 + 15),
        ("import os\nos.abort()", 128 + 6),
    ],
    every=2,
)
def test_exit_code_of_the_program(program, code, exit_code):
    assert program.run(stdin=code.encode()).returncode == exit_code


def test_a_message_names_the_signal_that_ended_the_program(program):
    done = program.run(stdin=b"import os, signal\nos.kill(os.getpid(), signal.SIGTERM)")
    assert done.stderr == b"python-executor: the program was ended by signal 15 (SIGTERM)\n"


def test_a_traceback_is_printed_without_further_messages(program):
    done = program.run(stdin=b"1 / 0")
    assert done.stderr.endswith(b"ZeroDivisionError: division by zero\n")
    assert b"python-executor" not in done.stderr


def test_timeout(program):
    done = program.run("--timeout", "1", stdin=b"print('so far', flush=True)\nwhile True: pass")
    assert (done.returncode, done.stdout) == (124, b"so far\n")
    assert b"timeout" in done.stderr


def test_memory_limit(program):
    done = program.run("--memory", "64", stdin=b"x = []\nwhile True: x.append(bytearray(10_000_000))")
    assert done.returncode == 137
    assert b"out_of_memory" in done.stderr


def test_output_limit(program):
    done = program.run(stdin=b"while True: print('x' * 100_000)")
    assert done.returncode == 125
    assert b"output_limit" in done.stderr
    assert (
        b"the server stored only the beginning of stdout; python-executor logs returns no more" in done.stderr
    )


def test_server_unreachable(lone_program):
    for arguments in (
        ("run",),
        ("submit",),
        ("follow", "exe_0"),
        ("kill", "exe_0"),
        ("list",),
        ("eval", "1"),
    ):
        done = lone_program.run("--server", "http://127.0.0.1:1", *arguments, stdin=b"print(1)")
        assert (done.returncode, done.stdout) == (125, b"")
        assert (
            done.stderr
            == b"python-executor: cannot reach the server at http://127.0.0.1:1: connection refused\n"
        )


@pytest.mark.parametrize("command", ["follow", "logs", "kill"])
def test_unknown_execution(program, command):
    done = program.run(command, "exe_" + 32 * "0")
    assert (done.returncode, done.stdout) == (125, b"")
    assert b"exe_000" in done.stderr


@sampled(
    ("status", "exit_code"),
    [(400, 2), (413, 2), (415, 2), (401, 125), (404, 125), (409, 125), (429, 125), (500, 125), (503, 125)],
)
def test_rejected_requests(lone_program, status, exit_code):
    def answer(request: Request) -> None:
        request.rfile.read(int(request.headers["Content-Length"]))
        body = {"error": f"this is a {status}", "code": "some_code"}
        request.say("application/json", json.dumps(body).encode(), status)

    with canned(answer) as url:
        done = evolve(lone_program, server=url).run("eval", "1")
    assert (done.returncode, done.stdout) == (exit_code, b"")
    assert done.stderr.startswith(b"python-executor: ")
    assert f"this is a {status}".encode() in done.stderr
    assert (b"--token" in done.stderr) == (status == 401)


@sampled(
    ("field", "said"),
    [
        ("tar", "no good"),
        ("files[0].content", "no good"),
        ("code", "no good"),
        ("config.memory_mb", "no good (--memory)"),
        ("env_vars[3]", "no good (--env)"),
        ("new_field", "no good (new_field)"),
        (None, "no good"),
    ],
    every=3,
)
def test_a_rejected_request_names_the_flag_and_no_part_of_the_request(lone_program, field, said):
    def answer(request: Request) -> None:
        request.rfile.read(int(request.headers["content-length"]))
        body = {"error": "no good", "code": "invalid_request", "field": field}
        request.say("application/json", json.dumps(body).encode(), 400)

    with canned(answer) as url:
        done = evolve(lone_program, server=url).run("eval", "1")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode() == f"python-executor: request rejected by the server: {said}\n"


CONNECT = b"import socket\nsocket.create_connection(('192.0.2.1', 80), 5)"


MANY_THREADS = b"""
import os, threading, time
try:
    while True:
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
except RuntimeError:
    os._exit(3)
"""


def test_hint_that_the_network_is_disabled(program):
    hint = b"python-executor: the network is disabled in this run; enable it with --network\n"
    for arguments, stdin in (((), CONNECT), (("eval", "-"), CONNECT)):
        done = program.run(*arguments, stdin=stdin)
        assert (done.returncode, done.stdout) == (1, b"")
        assert done.stderr.endswith(b"Network is unreachable\n" + hint)
        assert program.run("-q", *arguments, stdin=stdin).stderr.endswith(b"Network is unreachable\n")
        assert hint not in program.run("--json", *arguments, stdin=stdin).stderr


def test_hint_that_a_package_is_missing(program):
    done = program.run(stdin=b"import yaml")
    assert (done.returncode, done.stdout) == (1, b"")
    hint = (
        b"python-executor: the sandbox has no module yaml; add the package PyYAML to the requirements: "
        b'--requirements FILE, or a "# /// script" block\n'
    )
    assert done.stderr.endswith(b"No module named 'yaml'\n" + hint)


def test_hint_that_the_disk_is_full(program):
    done = program.run("--disk", "1", stdin=b"open('big', 'wb').write(bytes(2 << 20))")
    hint = b"python-executor: files in /work and /tmp together may take 1 MiB in this run; change it with --disk\n"
    assert (done.returncode, done.stderr.endswith(b"No space left on device\n" + hint)) == (1, True)


def test_hint_that_the_limit_of_processes_was_reached(program):
    done = program.run(stdin=MANY_THREADS)
    assert (done.returncode, done.stdout) == (3, b"")
    assert done.stderr.startswith(b"python-executor: the program reached the limit of "), done.stderr


@pytest.mark.parametrize("command", ["follow", "logs", "kill"])
def test_invalid_execution_id(program, command):
    assert program.run(command, "../list").returncode == 2


def test_closing_the_output_pipe_kills_the_execution(program):
    program.file("loop.py", "while True: print('line', flush=True)")
    done = program.shell("$P -v loop.py | head -2")
    assert (done.returncode, done.stdout) == (141, b"line\nline\n")
    execution_id = done.stderr.split(b"exe_")[1].split()[0].decode()
    assert program.run("follow", f"exe_{execution_id}").returncode == 125


def test_output_to_a_full_device_is_an_error(program):
    done = program.shell("echo 'print(1)' | $P >/dev/full")
    assert done.returncode == 125
    assert b"No space left" in done.stderr


@pytest.mark.parametrize("stderr", ["2>/dev/full", "2>&-"])
def test_messages_that_cannot_be_printed_change_neither_output_nor_exit_code(program, stderr):
    for command, code, output in (
        ("follow exe_00000000000000000000000000000000", 125, b""),
        ("run --env NOT_SET_ANYWHERE main.py", 2, b""),
        ("eval 'print(1); exit(3)' --output-file none", 3, b"1\n"),
    ):
        done = program.shell(f"$P {command} {stderr}")
        assert (done.returncode, done.stdout) == (code, output)


def test_a_token_with_a_line_break_is_a_usage_error(program):
    """For example, one that was read from a file with Windows line endings."""
    done = program.shell("PYEXEC_TOKEN=$(printf 'secret\\r') $P list")
    assert done.returncode == 2
    assert b"invalid token: it contains a line break" in done.stderr
    assert b"secret" not in done.stderr


def test_closed_stdout_is_not_written_to_another_file(program):
    done = program.shell("echo 'print(1)' | $P >&-")
    # The Go runtime opens /dev/null in place of a closed standard descriptor.
    assert (done.returncode, done.stdout) == (125 if program.name == "python" else 0, b"")
