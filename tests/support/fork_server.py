"""Run the Python command line in processes that are forked from one which has loaded the modules.

A start takes 0.4 to 0.8 s of processor time, most of it for imports, and `make test` needs hundreds of starts. A forked
process has its own arguments, environment, directory, pipes, signals and exit code, as one that is executed has."""

import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import anyio
from attrs import frozen

MAX_REQUEST_BYTES = 200_000  # a message of a socket is not larger
LOADED_AT_EXECUTION = ("PYTHON", "LC_", "LANG", "SSL_")
"""Prefixes of variables that Python or OpenSSL read when a process is executed."""


@frozen
class ForkServer:
    """A process with the modules of the command line, and the socket to which it answers."""

    process: subprocess.Popen[bytes]
    requests: socket.socket

    def run(
        self, arguments: Sequence[str], stdin: bytes | int, directory: Path, environment: Mapping[str, str]
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command in a forked process until it ends; `stdin` may be a file descriptor."""
        input_end, feeding = os.pipe() if isinstance(stdin, bytes) else (os.dup(stdin), None)
        (read_stdout, stdout), (read_stderr, stderr) = os.pipe(), os.pipe()
        request = json.dumps([list(arguments), str(directory), dict(environment)]).encode()
        with ThreadPoolExecutor(3) as threads:
            try:
                socket.send_fds(self.requests, [request], [input_end, stdout, stderr])
            finally:
                for descriptor in (input_end, stdout, stderr):
                    os.close(descriptor)
                outputs = [threads.submit(_read_all, pipe) for pipe in (read_stdout, read_stderr)]
                if feeding is not None:
                    threads.submit(_write_all, feeding, stdin)
            try:
                code = int(self.requests.recv(64))
            except TimeoutError:
                os.killpg(self.process.pid, signal.SIGKILL)  # also the forked process, which holds the pipes
                raise
        return subprocess.CompletedProcess(arguments, code, outputs[0].result(), outputs[1].result())


@contextmanager
def fork_server(prefix: Sequence[str], seconds: float) -> Iterator[ForkServer]:
    """Start a fork server, whose command follows `prefix`. A command that takes more than `seconds` is an error."""
    requests, served = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    requests.settimeout(seconds)
    with requests:
        with served:
            process = subprocess.Popen(
                [*prefix, sys.executable, "-m", __name__, str(served.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[served.fileno()],
                start_new_session=True,
            )
        yield ForkServer(process, requests)
    process.wait(seconds)  # it ends when the socket is closed


def _read_all(pipe: int) -> bytes:
    with os.fdopen(pipe, "rb") as file:
        return file.read()


def _write_all(pipe: int, data: bytes) -> None:
    try:
        with os.fdopen(pipe, "wb") as file:
            file.write(data)
    except BrokenPipeError:
        return  # the command has not read all of its input, as it may


def _serve(requests: socket.socket) -> None:
    """Fork a process for each request, and reply with its exit code. Return in each forked process."""
    while True:
        request, descriptors, _, _ = socket.recv_fds(requests, MAX_REQUEST_BYTES, 3)
        if not request:
            sys.exit(0)
        forked = os.fork()
        if forked == 0:
            requests.close()
            return _prepare(*json.loads(request), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        _, status = os.waitpid(forked, 0)
        requests.send(str(os.waitstatus_to_exitcode(status)).encode())


def _prepare(
    arguments: list[str], directory: str, environment: dict[str, str], descriptors: Sequence[int]
) -> None:
    """Give this process its arguments, directory, environment and standard streams."""
    for standard, descriptor in enumerate(descriptors):
        os.dup2(descriptor, standard)
        os.close(descriptor)
    # Standard output and error are pipes, for which the objects of the parent fit. Input may be a terminal or a file.
    sys.stdin = open(0, encoding=sys.stdin.encoding, errors=sys.stdin.errors, closefd=False)  # noqa: SIM115
    sys.argv[1:] = arguments
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)


def _load() -> None:
    """Load what commands load, except for `mcp`, whose modules are slow to load and rarely used."""
    commands = importlib.import_module("pyexec_cli.commands")
    for module, _ in commands._COMMANDS.values():
        if module != "mcp":
            importlib.import_module(f"pyexec_cli.{module}")
    importlib.import_module("importlib.metadata")
    anyio.run(anyio.sleep, 0)  # loads the event loop
    gc.freeze()


if __name__ == "__main__":
    _load()
    _serve(socket.socket(fileno=int(sys.argv[1])))
    importlib.import_module("pyexec_cli.main").main()
