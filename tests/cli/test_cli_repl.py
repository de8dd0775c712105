"""Test `repl` on a terminal, and the signals that end it, with a server in memory."""

import fcntl
import os
import select
import signal
import subprocess
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.cli.conftest import DEFAULT_SIGNALS, SECONDS, Program
from tests.support.fake_sessions import FakeSession, FakeSessions


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
