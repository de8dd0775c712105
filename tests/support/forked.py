"""Python programs in processes that are forked from one which has loaded their modules.

Loading takes most of a start: 0.9 s of processor time for the server, 0.3 s for the command line. A run of the tests
needs hundreds of starts. A forked process runs the same `main`, and has its own arguments, environment, directory,
standard streams, signals and exit code."""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

LOADED = "tests.support.loaded"
READ_AT_EXECUTION = ("PYTHON", "LC_", "LANG", "SSL_")
"""Prefixes of variables that Python or OpenSSL read when a process is executed: a forked one does not see its own."""
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload([LOADED])


class ForkedProcess:
    """A running program, with the interface of `subprocess.Popen` as far as tests use it."""

    def __init__(
        self,
        main: Callable[[], object],
        arguments: Sequence[str],
        environment: Mapping[str, str],
        streams: tuple[int, int, int],
        directory: Path | None = None,
    ) -> None:
        """Start `main` with the arguments of its command line, name first, and descriptors of its standard streams."""
        run = (main, list(arguments), dict(environment), _Streams(streams), directory or Path.cwd())
        self._process = _FORKS.Process(target=_become, args=run)
        self._process.start()
        self.pid = self._process.pid or 0
        self.stdout: Any = None

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self._process.exitcode is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start_forked(
    main: Callable[[], object], name: str, environment: Mapping[str, str], stderr: int
) -> ForkedProcess:
    """Start a program whose standard output the caller reads as text from `stdout`."""
    reader, writer = os.pipe()
    with open(os.devnull) as nothing:
        process = ForkedProcess(main, [name], environment, (nothing.fileno(), writer, stderr))
    os.close(writer)
    process.stdout = open(reader)  # noqa: SIM115 - the caller closes it, like that of Popen
    return process


def run_forked(
    main: Callable[[], object],
    arguments: Sequence[str],
    stdin: bytes | int,
    environment: Mapping[str, str],
    directory: Path,
    seconds: float,
) -> subprocess.CompletedProcess[bytes]:
    """Run a program until it ends, as `subprocess.run` does; `stdin` may be a file descriptor."""
    reader, feeding = (os.dup(stdin), None) if isinstance(stdin, int) else os.pipe()
    (read_stdout, stdout), (read_stderr, stderr) = os.pipe(), os.pipe()
    with ThreadPoolExecutor(3) as threads:
        try:
            process = ForkedProcess(main, arguments, environment, (reader, stdout, stderr), directory)
        finally:
            for descriptor in (reader, stdout, stderr):
                os.close(descriptor)
            outputs = [threads.submit(_read_all, pipe) for pipe in (read_stdout, read_stderr)]
            if feeding is not None and isinstance(stdin, bytes):
                threads.submit(_write_all, feeding, stdin)
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()  # else its pipes stay open
            raise
    return subprocess.CompletedProcess(arguments, code, outputs[0].result(), outputs[1].result())


def _read_all(pipe: int) -> bytes:
    with os.fdopen(pipe, "rb") as file:
        return file.read()


def _write_all(pipe: int, data: bytes) -> None:
    try:
        with os.fdopen(pipe, "wb") as file:
            file.write(data)
    except BrokenPipeError:
        return  # the program has not read all of its input, as it may


class _Streams:
    """Descriptors that become the standard streams of a new process."""

    def __init__(self, descriptors: tuple[int, int, int]) -> None:
        self._descriptors = descriptors

    def __getstate__(self) -> Any:
        return [DupFd(each) for each in self._descriptors]

    def __setstate__(self, descriptors: Any) -> None:
        self._descriptors = tuple(each.detach() for each in descriptors)

    def redirect(self) -> None:
        for standard, descriptor in enumerate(self._descriptors):
            os.dup2(descriptor, standard)
            os.close(descriptor)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - multiprocessing has closed the one before


def _become(
    main: Callable[[], object],
    arguments: list[str],
    environment: dict[str, str],
    streams: _Streams,
    directory: Path,
) -> None:
    """Become the program, in the new process. Restore default signal handlers."""
    streams.redirect()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = arguments
    Path("/proc/self/comm").write_text(Path(arguments[0]).name)
    main()
