"""Test `repl` on a terminal, and the signals that end it, with a server in memory."""

import fcntl
import os
import re
import select
import signal
import subprocess
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.cli.conftest import DEFAULT_SIGNALS, SECONDS, Program, read_until, wait_until, wait_until_running
from tests.support.fake_cells import FakeSession
from tests.support.fake_sessions import FakeSessions


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
        wait_until_running(session)
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
        wait_until_running(session)
        terminal.press_ctrl_c()
        wait_until(session.interrupted.is_set)
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
        terminal.type(b"\x03")
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
            wait_until_running(session)
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
            wait_until_running(session)
            process.send_signal(number)
            assert process.wait(20) == 128 + number
        assert session.is_open == is_open


def wait_for_session(fake: FakeSessions, last: str) -> FakeSession:
    """Wait for a session that was opened after the last one."""
    wait_until(lambda: list(fake.sessions)[-1] != last)
    return list(fake.sessions.values())[-1]


@pytest.mark.parametrize(
    ("number", "command"),
    [
        (signal.SIGINT, ("session", "new")),
        (signal.SIGTERM, ("repl",)),
        (signal.SIGHUP, ("repl",)),
    ],
)
def test_a_session_that_opens_when_a_signal_arrives_is_closed(
    cli: Program, fake: tuple[str, FakeSessions], number: signal.Signals, command: tuple[str, ...]
) -> None:
    fake[1].hold_opening()
    with cli.started(*command, "--image", "slow", stdin=subprocess.PIPE) as process:
        assert fake[1].opening.wait(SECONDS)
        process.send_signal(number)
        read_until(process.stderr, b"closing the session as soon as it is open")
        fake[1].may_open.set()
        assert process.wait(20) == 128 + number
        assert process.stdout.read() == b""
    session = list(fake[1].sessions.values())[-1]
    assert (session.request["docker_image"], session.is_open) == ("slow", False)


def test_ctrl_c_on_a_terminal_ends_a_session_that_opens(cli: Program, fake: tuple[str, FakeSessions]) -> None:
    fake[1].hold_opening()
    with on_a_terminal(cli, "repl", "--image", "slow") as terminal:
        assert fake[1].opening.wait(SECONDS)
        terminal.type(b"\x03")
        terminal.expect(b"closing the session as soon as it is open")
        fake[1].may_open.set()
        assert terminal.process.wait(20) == 130
    assert not list(fake[1].sessions.values())[-1].is_open


def test_a_second_ctrl_c_does_not_wait_for_a_session_that_opens(
    cli: Program, fake: tuple[str, FakeSessions]
) -> None:
    fake[1].hold_opening()
    with cli.started("repl", "--image", "slow", stdin=subprocess.PIPE) as process:
        assert fake[1].opening.wait(SECONDS)
        process.send_signal(signal.SIGINT)
        read_until(process.stderr, b"closing the session as soon as it is open")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    fake[1].may_open.set()


def test_a_session_that_cannot_be_closed_is_named(cli: Program) -> None:
    done = cli.run("repl", "--image", "stuck", stdin=b"1 + 1\n")
    assert (done.returncode, done.stdout) == (125, b"2\n")
    assert b"the session is still open: internal server error" in done.stderr
    assert re.search(rb"close it with: python-executor session close ses_\w+\n", done.stderr)


def test_the_repl_says_how_to_interrupt_and_leave(cli: Program, fake: tuple[str, FakeSessions]) -> None:
    with on_a_terminal(cli, "repl") as terminal:
        terminal.expect(b" (python:3.12-slim)\r\n")
        terminal.expect(b"Ctrl-C interrupts the code, Ctrl-D closes the session\r\n")
        session = list(fake[1].sessions.values())[-1]
        with on_a_terminal(cli, "repl", "--session", session.id) as second:
            second.expect(session.id.encode() + b" (python:3.12-slim)\r\n")
            second.expect(b"Ctrl-C interrupts the code, Ctrl-D exits, the session stays open\r\n")
    piped = cli.run("repl", stdin=b"").stderr
    assert re.fullmatch(rb"python-executor: session ses_\w+ \(python:3.12-slim\)\n", piped)


def test_the_repl_of_a_closed_session_says_only_that_it_is_closed(cli: Program) -> None:
    session = cli.run("session", "new").stdout.decode().strip()
    cli.run("session", "close", session)
    done = cli.run("repl", "--session", session, stdin=b"1\n")
    error = f"python-executor: session {session} is closed (deleted); open a new one\n"
    assert (done.returncode, done.stdout, done.stderr.decode()) == (125, b"", error)


def test_a_prompt_begins_a_line_after_output_that_does_not_end_with_one(cli: Program) -> None:
    with on_a_terminal(cli, "repl") as terminal:
        terminal.expect(b">>> ")
        terminal.type(b"print('a', end='')\r")
        terminal.expect(b"\r\na\r\n")
        terminal.expect(b">>> ")
        terminal.type(b"\x04")
        assert terminal.process.wait(20) == 0
    assert cli.run("repl", "-q", stdin=b"print('a', end='')\n1\n").stdout == b"a1\n"


def test_the_repl_ends_if_its_session_is_closed_while_code_runs(cli: Program) -> None:
    with on_a_terminal(cli, "repl") as terminal:
        terminal.expect(b">>> ")
        terminal.type(b"closed\r")
        terminal.expect(b"execution failed (session_closed)")
        assert terminal.process.wait(20) == 125


def test_ctrl_d_in_a_statement_ends_only_the_statement(cli: Program, fake: tuple[str, FakeSessions]) -> None:
    with on_a_terminal(cli, "repl") as terminal:
        terminal.expect(b">>> ")
        terminal.type(b"if True:\r")
        terminal.expect(b"... ")
        terminal.type(b"  print(6 * 7)\r")
        terminal.expect(b"... ")
        terminal.type(b"\x04")
        terminal.expect(b"42\r\n")
        terminal.expect(b">>> ")
        assert fake[1].requests[-1]["code"] == "if True:\n  print(6 * 7)"
        terminal.type(b"\x04")
        assert terminal.process.wait(20) == 0


def test_flags_of_a_new_session_are_rejected_for_an_open_one(lone_program: Program) -> None:
    for flag in ("--memory", "--cpus", "--image"):
        done = lone_program.run("repl", "--session", "ses_1", flag, "1")
        assert done.returncode == 2
        assert b"--session: cannot be combined with flags that open a session" in done.stderr
