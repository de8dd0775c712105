"""Fixtures that run the command line programs. Every test runs against both programs."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import pytest
from attrs import evolve, frozen

from pyexec_cli.main import main
from tests.support.cases import keep_one_variant
from tests.support.fake_cells import FakeSession
from tests.support.fake_sessions import FakeSessions, fake_sessions
from tests.support.forked import READ_AT_EXECUTION, run_forked
from tests.support.golang import go_program
from tests.support.paths import ROOT

PROGRAMS = ("python", "go")
SECONDS = 60
EXECUTING = ("test_cli_repl.py", "test_cli_unused_stdin.py")
"""Files whose tests need a terminal, signals or a shell, and so a process that is executed."""
# A signal that the parent of this process ignores (nohup, a background job) would be ignored by the programs too.
DEFAULT_SIGNALS = ("env", "--default-signal=HUP,INT,TERM")


@frozen
class Program:
    """A command line program, and the URL of its server."""

    name: str
    path: Path
    server: str | None
    directory: Path

    def run(
        self, *arguments: str, stdin: bytes | int = b"", **environment: str
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the program with this input until it ends; `stdin` may be a file descriptor.

        The Python program runs in a forked process, which is quicker."""
        if self.name == "python" and not any(name.startswith(READ_AT_EXECUTION) for name in environment):
            command = (str(self.path), *arguments)
            return run_forked(main, command, stdin, self.environment(environment), self.directory, SECONDS)
        return self.execute(*arguments, stdin=stdin, **environment)

    def execute(
        self, *arguments: str, stdin: bytes | int = b"", **environment: str
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the program as users do: in a process that is executed."""
        given = {"input": stdin} if isinstance(stdin, bytes) else {"stdin": stdin}
        return subprocess.run(
            [*DEFAULT_SIGNALS, self.path, *arguments],
            capture_output=True,
            cwd=self.directory,
            env=self.environment(environment),
            timeout=SECONDS,
            check=False,
            **given,
        )

    @contextmanager
    def started(self, *arguments: str, **options: object) -> Iterator[subprocess.Popen[bytes]]:
        """Start the program with unbuffered pipes, and kill it at the end."""
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        command = [*DEFAULT_SIGNALS, str(self.path), *arguments]
        with subprocess.Popen(
            command, **({"cwd": self.directory, "env": self.environment({}), "bufsize": 0} | pipes | options)
        ) as process:
            watchdog = threading.Timer(SECONDS, process.kill)
            watchdog.start()
            try:
                yield process
            finally:
                watchdog.cancel()
                if process.poll() is None:
                    process.kill()

    def on_a_terminal(self, *arguments: str | Path, **options: object) -> bytes:
        """Run the program with standard error on a terminal, and return what the terminal shows."""
        controller, terminal = os.openpty()
        try:
            with self.started(*map(str, arguments), stderr=terminal, **options):
                os.close(terminal)
                screen = b""
                with suppress(OSError):  # EIO: the program has closed the terminal
                    while piece := os.read(controller, 65536):
                        screen += piece
            return screen
        finally:
            os.close(controller)

    def shell(self, line: str) -> subprocess.CompletedProcess[bytes]:
        """Run a line of bash in which $P is the program. The exit code is that of the last command that failed."""
        environment = self.environment({"P": str(self.path)})
        command = [*DEFAULT_SIGNALS, "bash", "-o", "pipefail", "-c", line]
        return subprocess.run(
            command, capture_output=True, cwd=self.directory, env=environment, timeout=SECONDS, check=False
        )

    def environment(self, more: dict[str, str]) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYEXEC_")}
        return inherited | ({"PYEXEC_SERVER": self.server} if self.server else {}) | more

    def file(self, name: str, content: str | bytes = "") -> Path:
        """Write a file in the working directory of the program."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let `make test` run each test that needs a server, or that cannot fork the program, with one of the programs.

    `make soak` runs them with both."""
    for item in items:
        if (
            isinstance(item, pytest.Function)
            and ROOT / "tests/cli" in item.path.parents
            and "lone_program" in item.fixturenames
            and ("image" in item.fixturenames or item.path.name in EXECUTING)
        ):
            keep_one_variant(item, "lone_program", PROGRAMS)


@pytest.fixture(scope="session")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the paths of the programs; build the Go program once for all workers."""
    python = Path(sys.executable).with_name("python-executor")
    if not python.exists():
        pytest.fail(f"{python} is not there; `make test` installs it")
    return {"python": python, "go": Path(go_program(tmp_path_factory))}


@pytest.fixture(params=PROGRAMS)
def lone_program(request: pytest.FixtureRequest, paths: dict[str, Path], tmp_path: Path) -> Program:
    """A program without a server."""
    return Program(request.param, paths[request.param], None, tmp_path)


@pytest.fixture
def program(lone_program: Program, server) -> Program:
    """A program with a real server, in an empty directory."""
    return evolve(lone_program, server=server.url)


@pytest.fixture(scope="module")
def fake() -> Iterator[tuple[str, FakeSessions]]:
    with fake_sessions() as running:
        yield running


@pytest.fixture
def cli(lone_program: Program, fake: tuple[str, FakeSessions]) -> Program:
    return evolve(lone_program, server=fake[0])


def read_until(stream: IO[bytes], wanted: bytes) -> bytes:
    """Read the output up to this text; fail if the output ends before."""
    got = b""
    while wanted not in got:
        piece = stream.read(1)
        assert piece, f"the output ended with {got!r}, before {wanted!r}"
        got += piece
    return got


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until a condition of the server in memory is true."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.01)


def wait_until_running(session: FakeSession) -> None:
    """Wait until the session runs a cell."""
    wait_until(lambda: session.running is not None)


def interrupt(process: subprocess.Popen[bytes], signals: Sequence[signal.Signals] = (signal.SIGINT,)) -> None:
    for number in signals:
        process.send_signal(number)
