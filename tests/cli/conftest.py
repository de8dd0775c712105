"""The command line programs, as processes. Each must behave as the other does: the suite runs over all of them."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import pytest
from attrs import evolve, frozen

from tests.support.schedule import once

ROOT = Path(__file__).parents[2]
PROGRAMS = ("python", "go")
SECONDS = 60


@frozen
class Program:
    """A command line program, and the server it talks to."""

    name: str
    path: Path
    server: str | None
    directory: Path

    def run(
        self, *arguments: str, stdin: bytes | int = b"", **environment: str
    ) -> subprocess.CompletedProcess[bytes]:
        """Run it to its end with this input; `stdin` may be a descriptor."""
        given = {"input": stdin} if isinstance(stdin, bytes) else {"stdin": stdin}
        return subprocess.run(
            [self.path, *arguments],
            capture_output=True,
            cwd=self.directory,
            env=self.environment(environment),
            timeout=SECONDS,
            check=False,
            **given,
        )

    @contextmanager
    def started(self, *arguments: str, **options: object) -> Iterator[subprocess.Popen[bytes]]:
        """Start it, with pipes that are not buffered; it is gone at the end."""
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        command = [str(self.path), *arguments]
        with subprocess.Popen(
            command, cwd=self.directory, env=self.environment({}), bufsize=0, **(pipes | options)
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
        """Run it to its end with standard error on a terminal, and give what is to be seen there."""
        ours, theirs = os.openpty()
        try:
            with self.started(*map(str, arguments), stderr=theirs, **options):
                os.close(theirs)
                screen = b""
                with suppress(OSError):  # EIO: nobody has the terminal open any more
                    while piece := os.read(ours, 65536):
                        screen += piece
            return screen
        finally:
            os.close(ours)

    def shell(self, line: str) -> subprocess.CompletedProcess[bytes]:
        """Run a line of bash in which $P is the program; the exit code is the pipeline's first failure."""
        environment = self.environment({"P": str(self.path)})
        command = ["bash", "-o", "pipefail", "-c", line]
        return subprocess.run(
            command, capture_output=True, cwd=self.directory, env=environment, timeout=SECONDS, check=False
        )

    def environment(self, more: dict[str, str]) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYEXEC_")}
        return inherited | ({"PYEXEC_SERVER": self.server} if self.server else {}) | more

    def file(self, name: str, content: str | bytes = "") -> Path:
        """A file below the directory where it runs."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path


@pytest.fixture(scope="session")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Where the programs are; the Go one is built anew, once for all workers."""
    python = Path(sys.executable).with_name("python-executor")
    if not python.exists():
        pytest.fail(f"{python} is not there; `make test` installs it")
    return {"python": python, "go": Path(once(tmp_path_factory, "go-program", build_go_program))}


def build_go_program() -> str:
    """The path of the Go program, built from this checkout."""
    built = subprocess.run(
        [sys.executable, ROOT / "dev" / "golang.py"], check=True, stdout=subprocess.PIPE, text=True
    )
    return built.stdout.splitlines()[-1]


@pytest.fixture(params=PROGRAMS)
def lone_program(request: pytest.FixtureRequest, paths: dict[str, Path], tmp_path: Path) -> Program:
    """A program that has not been told of a server."""
    return Program(request.param, paths[request.param], None, tmp_path)


@pytest.fixture
def program(lone_program: Program, server) -> Program:
    """A program in an empty directory, whose server is the real one."""
    return evolve(lone_program, server=server.url)


def read_until(stream: IO[bytes], wanted: bytes) -> bytes:
    """The output as far as this text; fails if it ends before."""
    got = b""
    while wanted not in got:
        piece = stream.read(1)
        assert piece, f"the output ended with {got!r}, before {wanted!r}"
        got += piece
    return got


def interrupt(process: subprocess.Popen[bytes], signals: Sequence[signal.Signals] = (signal.SIGINT,)) -> None:
    for number in signals:
        process.send_signal(number)
