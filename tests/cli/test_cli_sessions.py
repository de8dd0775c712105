"""Test `session` and `repl` with a server in memory."""

import fcntl
import json
import os
import re
import select
import signal
import subprocess
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from attrs import evolve

from tests.cli.conftest import DEFAULT_SIGNALS, SECONDS, Program
from tests.support.fake_sessions import FakeSession, FakeSessions, fake_sessions

ID = re.compile(r"ses_[0-9a-f]{32}\n")


@pytest.fixture(scope="module")
def fake() -> Iterator[tuple[str, FakeSessions]]:
    with fake_sessions() as running:
        yield running


@pytest.fixture
def cli(lone_program: Program, fake: tuple[str, FakeSessions]) -> Program:
    return evolve(lone_program, server=fake[0])


def test_open_list_show_and_close(cli: Program, fake: tuple[str, FakeSessions]) -> None:
    cli.file("requirements.txt", "numpy\n")
    opened = cli.run(
        *("session", "new", "--requirements", "requirements.txt", "-e", "A=1", "--image", "python:3.13"),
        *("--pre-command", "true", "--idle-timeout", "60", "--lifetime", "1.5e3", "--timeout", "5"),
    )
    assert (opened.returncode, opened.stderr) == (0, b"")
    assert ID.fullmatch(opened.stdout.decode())
    session = opened.stdout.decode().strip()
    assert fake[1].sessions[session].request == {
        "docker_image": "python:3.13",
        "requirements_txt": "numpy\n",
        "env_vars": ["A=1"],
        "pre_commands": ["true"],
        "idle_timeout_seconds": 60,
        "lifetime_seconds": 1500,
        "config": {"timeout_seconds": 5},
    }
    listed = cli.run("session", "list").stdout.decode().splitlines()
    assert listed[0].split() == ["ID", "STATUS", "CREATED", "WAITING", "IMAGE"]
    [row] = [line.split() for line in listed if session in line]
    assert row == [session, "open", "2026-01-01T00:00:00Z", "0", "python:3.13"]
    documents = map(json.loads, cli.run("session", "list", "--json", "-q").stdout.splitlines())
    assert session in [each["id"] for each in documents]
    assert json.loads(cli.run("session", "show", session).stdout)["status"] == "open"
    for _ in range(2):
        assert cli.run("session", "close", session).stdout == b"closed\n"


def test_a_session_gets_the_files_of_its_input(cli: Program, fake: tuple[str, FakeSessions]) -> None:
    cli.file("data/a.csv", "1,2")
    opened = json.loads(cli.run("--server", str(cli.server), "session", "new", "data", "--json").stdout)
    assert fake[1].sessions[opened["id"]].files == {"a.csv": b"1,2"}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("session", "new", "--image", "none"), 2, b"docker_image none is not allowed"),
        (("session", "show", "ses_unknown"), 125, b"no such session"),
        (("session", "close", "a b"), 2, b"ses_0123abcd"),
        (("session", "new", "--idle-timeout", "0"), 2, b"must be a positive number"),
        (("session", "new", "--async"), 2, b"--async"),
        (("repl", "--session", "ses_1", "--lifetime", "5"), 2, b"--session"),
        (("repl", "--session", "ses_unknown"), 125, b"no such session"),
    ],
)
def test_errors(cli: Program, arguments: tuple[str, ...], code: int, message: bytes) -> None:
    ended = cli.run(*arguments)
    assert (ended.returncode, ended.stdout) == (code, b"")
    assert message in ended.stderr


def test_the_repl_runs_statements_of_a_pipe(cli: Program, fake: tuple[str, FakeSessions]) -> None:
    script = b"""x = [
  6,
]

def f(n):
    # a comment

    return n * 7

f(x[0])
print("a", end="")
s = '''one
two'''
s
for n in range(2):
    print(n)
else:
    print("end")

"last"
"""
    before = len(fake[1].requests)
    ended = cli.run("repl", "-q", stdin=script)
    codes = [request["code"] for request in fake[1].requests[before:]]
    assert codes[0] == "x = [\n  6,\n]"
    assert codes[-1] == '"last"'
    assert ended.stdout.endswith(b"0\n1\nend\n'last'\n")
    assert ended.returncode == 0


@pytest.mark.parametrize(
    ("statement", "code", "message"),
    [("1 / 0", 1, b"ZeroDivisionError"), ("die", 124, b"timeout"), ("leave 3", 3, b"")],
)
def test_a_statement_of_a_pipe_that_fails_is_the_last_one(
    cli: Program, fake: tuple[str, FakeSessions], statement: str, code: int, message: bytes
) -> None:
    ended = cli.run("repl", stdin=f"1\n{statement}\n2\n".encode())
    assert (ended.returncode, ended.stdout) == (code, b"1\n")
    assert message in ended.stderr
    assert not list(fake[1].sessions.values())[-1].is_open
    assert cli.run("repl", stdin=statement.encode()).returncode == code


def test_the_repl_closes_its_own_session_and_leaves_another_one_open(
    cli: Program, fake: tuple[str, FakeSessions]
) -> None:
    cli.run("repl", stdin=b"x = 1\n")
    own = list(fake[1].sessions.values())[-1]
    assert not own.is_open
    opened = cli.run("session", "new").stdout.decode().strip()
    cli.run("repl", "--session", opened, "--timeout", "7", stdin=b"y = 5")
    assert fake[1].requests[-1] == {"code": "y = 5", "timeout_seconds": 7}
    ended = cli.run("repl", "--session", opened, stdin=b"y\nexit\nz\n")
    assert ended.stdout == b"5\n"
    assert fake[1].sessions[opened].is_open


def test_displays_of_a_session_have_running_numbers(cli: Program) -> None:
    ended = cli.run("repl", "--output-dir", "shown", stdin=b"show\n1\nshow\n")
    assert sorted(os.listdir(cli.directory / "shown")) == ["display-1.png", "display-2.png"]
    assert b"wrote shown/display-2.png" in ended.stderr
    assert b"displays not shown: 1" in cli.run("repl", stdin=b"show\n").stderr


def test_the_text_of_a_display_is_printed_if_no_better_form_is_shown_or_saved(cli: Program) -> None:
    ended = cli.run("repl", stdin=b"text\ntable\n")
    assert ended.stdout == b"a text\na table\n"
    assert b"not shown" not in ended.stderr
    saved = cli.run("repl", "--output-dir", "saved", stdin=b"text\ntable\n")
    assert saved.stdout == b"a text\n"
    assert b"wrote saved/display-2.html" in saved.stderr


def test_a_new_interpreter_is_reported(cli: Program) -> None:
    ended = cli.run("repl", stdin=b"die\n")
    assert b"execution failed (timeout): it ran longer than 1 s" in ended.stderr
    assert b"its variables are lost" in ended.stderr


@contextmanager
def on_a_terminal(cli: Program, *arguments: str) -> Iterator["Terminal"]:
    controller, terminal = os.openpty()
    environment = cli.environment({"TERM": "xterm", "PYEXEC_HISTORY": str(cli.directory / "history")})
    with subprocess.Popen(
        [*DEFAULT_SIGNALS, cli.path, *arguments],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=environment,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    ) as process:
        os.close(terminal)
        screen = Terminal(controller, process)
        try:
            yield screen
        finally:
            if process.poll() is None:
                process.kill()
            screen.close()


class Terminal:
    def __init__(self, controller: int, process: subprocess.Popen[bytes]) -> None:
        self._controller = controller
        self.process = process
        self.screen = b""

    def type(self, text: bytes) -> None:
        os.write(self._controller, text)

    def expect(self, text: bytes) -> None:
        """Read until the text is on the screen; what was before it counts no more."""
        while text not in self.screen:
            assert self._has_output(SECONDS), f"the screen stays {self.screen!r}, without {text!r}"
            piece = b""
            with suppress(OSError):  # EIO: the program has closed the terminal
                piece = os.read(self._controller, 65536)
            assert piece, f"the screen ended with {self.screen!r}, before {text!r}"
            self.screen += piece
        self.screen = self.screen.partition(text)[2]

    def type_until_output(self, key: bytes) -> None:
        """Type a key until something is printed: Python misses a signal between the prompt and the wait for a key."""
        while not self._has_output(0):
            self.type(key)
            self._has_output(1)

    def _has_output(self, seconds: float) -> bool:
        return bool(select.select([self._controller], [], [], seconds)[0])

    def hang_up(self) -> None:
        """Close the terminal, as its window does. The kernel sends SIGHUP."""
        os.close(self._controller)
        self._controller = -1

    def close(self) -> None:
        if self._controller >= 0:
            os.close(self._controller)

    def press_ctrl_c(self) -> None:
        self.process.send_signal(signal.SIGINT)


def test_the_repl_on_a_terminal(cli: Program, fake: tuple[str, FakeSessions]) -> None:
    with on_a_terminal(cli, "repl") as terminal:
        terminal.expect(b">>> ")
        terminal.type(b"def f():\r")
        terminal.expect(b"... ")
        terminal.type(b"  return 6 * 7\r")
        terminal.expect(b"... ")
        terminal.type(b"\r")
        terminal.expect(b">>> ")
        terminal.type(b"f()\r")
        terminal.expect(b"42\r\n")
        terminal.expect(b">>> ")
        terminal.type(b"sleep\r")
        session = list(fake[1].sessions.values())[-1]
        while session.running is None:
            pass
        terminal.press_ctrl_c()
        terminal.expect(b"KeyboardInterrupt")
        terminal.expect(b">>> ")
        terminal.type(b"\x1b[A\x1b[A\r")  # the statement before the last one
        terminal.expect(b"42\r\n")
        terminal.expect(b">>> ")
        terminal.type(b"\x04")
        assert terminal.process.wait(20) == 0
    assert not session.is_open
    assert "f()" in (cli.directory / "history").read_text()


def test_a_second_ctrl_c_kills_the_code(cli: Program, fake: tuple[str, FakeSessions]) -> None:
    with on_a_terminal(cli, "repl") as terminal:
        terminal.expect(b">>> ")
        terminal.type(b"stubborn\r")
        session = list(fake[1].sessions.values())[-1]
        while session.running is None:
            pass
        terminal.press_ctrl_c()
        while not session.interrupted.is_set():
            pass
        terminal.press_ctrl_c()
        terminal.expect(b"killing the code")
        terminal.expect(b"was killed")
        terminal.expect(b"the interpreter is restarted; its variables are lost")
        terminal.expect(b">>> ")
        terminal.type(b"1 + 1\r")
        terminal.expect(b"2\r\n")


def test_ctrl_c_at_the_prompt_drops_the_statement(cli: Program) -> None:
    with on_a_terminal(cli, "repl") as terminal:
        terminal.expect(b">>> ")
        terminal.type(b"if True:\r")
        terminal.expect(b"... ")
        terminal.type_until_output(b"\x03")
        terminal.expect(b">>> ")
        terminal.type(b"1 + 1\r")
        terminal.expect(b"2\r\n")
        terminal.expect(b">>> ")
        terminal.type(b"quit()\r")
        assert terminal.process.wait(20) == 0


@pytest.mark.parametrize("runs", [True, False], ids=["cell", "prompt"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_repl_and_closes_its_own_session(
    cli: Program, fake: tuple[str, FakeSessions], number: signal.Signals, runs: bool
) -> None:
    with on_a_terminal(cli, "repl") as terminal:
        terminal.expect(b">>> ")
        session = list(fake[1].sessions.values())[-1]
        if runs:
            terminal.type(b"sleep\r")
            while session.running is None:
                pass
        if number == signal.SIGHUP:
            terminal.hang_up()
        else:
            terminal.process.send_signal(number)
        assert terminal.process.wait(20) == 128 + number
    assert not session.is_open


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_repl_of_a_pipe(
    cli: Program, fake: tuple[str, FakeSessions], number: signal.Signals
) -> None:
    given = cli.run("session", "new").stdout.decode().strip()
    for arguments, is_open in ((), False), (("--session", given), True):
        with cli.started("repl", *arguments, stdin=subprocess.PIPE) as process:
            process.stdin.write(b"sleep\n")
            session = fake[1].sessions[given] if arguments else wait_for_session(fake[1], given)
            while session.running is None:
                pass
            process.send_signal(number)
            assert process.wait(20) == 128 + number
        assert session.is_open == is_open


def wait_for_session(fake: FakeSessions, last: str) -> FakeSession:
    """Wait for a session that was opened after the last one."""
    while (session := list(fake.sessions.values())[-1]).id == last:
        pass
    return session
