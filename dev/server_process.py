"""Servers as child processes of `make run` and `make cluster`: start, readiness, signals, exit."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from pathlib import Path
from types import FrameType, TracebackType

from console import SetupError
from consul_agent import ConsulAgent
from subprocesses import describe_exit, last_log_line
from virtualenv import BIN

_READY_SECONDS = 60.0
_ANNOUNCEMENT = "listening on "
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
"""The signals of the first and of the second request to stop, and of all later ones. A second SIGTERM would change
nothing: the server goes on with its drain."""


class ServerProcess:
    """A running server. It logs to this terminal, or appends to the file `log`."""

    def __init__(self, environment: dict[str, str], log: Path | None = None) -> None:
        """Start the server."""
        self._stop_requests = 0
        self._log = log
        with contextlib.ExitStack() as stack:
            # A session of its own: otherwise Ctrl-C would reach it twice, from the terminal and from `ServerGroup`.
            self._process = subprocess.Popen(
                [BIN / "python-executor-server"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=None if log is None else stack.enter_context(log.open("ab")),
                start_new_session=True,
                bufsize=0,
            )
        if self._process.stdout is None:
            raise AssertionError("the server has no stdout pipe")
        self._output = self._process.stdout

    @property
    def stopping(self) -> bool:
        """Return True if the server has been asked to stop."""
        return self._stop_requests > 0

    def stop(self) -> None:
        """Ask the server to stop. The second call ends running programs at once; the third kills the server."""
        number = _STOP_SIGNALS[min(self._stop_requests, len(_STOP_SIGNALS) - 1)]
        self._stop_requests += 1
        self._process.send_signal(number)

    def wait_until_ready(self, agent: ConsulAgent | None = None) -> str | None:
        """Return the URL that the server announces, or None if it was asked to stop before that.

        Raise a `SetupError` if the server or the agent exits, or if the server is not ready in time.
        """
        deadline = time.monotonic() + _READY_SECONDS
        while line := self._next_line(deadline, agent):
            _, found, url = line.strip().partition(_ANNOUNCEMENT)
            if found:
                return url
            print(line, end="", flush=True)
        if self.stopping:
            return None
        if self._process.poll() is None and time.monotonic() >= deadline:
            raise SetupError(
                f"The server was not ready after {_READY_SECONDS:.0f} seconds.{self._log_hint()}"
            )
        end = describe_exit(self._process.wait())
        raise SetupError(f"The server did not start: it {end}.{self._log_hint()}")

    def wait(self) -> int:
        """Print the server's output until it exits; return its exit code."""
        for line in self._output:
            print(line.decode(errors="replace"), end="", flush=True)
        return self._process.wait()

    def fileno(self) -> int:
        """Return a descriptor that `select` reports as readable when the server prints something or exits."""
        return self._output.fileno()

    def _next_line(self, deadline: float, agent: ConsulAgent | None) -> str:
        """Return the next line of output; empty at the end of the output and at the deadline."""
        watched: list[ServerProcess | ConsulAgent] = [self] if agent is None else [self, agent]
        readable, _, _ = select.select(watched, [], [], max(0.0, deadline - time.monotonic()))
        if agent in readable and agent is not None:
            raise agent.exit_error()
        return self._output.readline().decode(errors="replace") if readable else ""

    def _log_hint(self) -> str:
        return "" if self._log is None else f" {last_log_line(self._log)}"


class ServerGroup:
    """Servers that receive each SIGINT, SIGTERM and SIGHUP of this process as a request to stop.

    After the first signal they wait for running programs, after the second they end the programs, and the third
    kills the servers. Leaving the context stops all servers. SIGHUP, which arrives when the terminal closes, counts
    only as the first one.
    """

    def __init__(self) -> None:
        self.stopping = False
        self._servers: list[ServerProcess] = []

    def start(self, environment: dict[str, str], log: Path | None = None) -> ServerProcess:
        """Start another server; ask it to stop at once if the group is stopping."""
        server = ServerProcess(environment, log)
        self._servers.append(server)
        if self.stopping:
            server.stop()
        return server

    def stop_and_wait(self) -> None:
        """Ask each server to stop, unless that has been done, and wait until all have exited."""
        self.stopping = True
        for server in self._servers:
            if not server.stopping:
                server.stop()
        for server in self._servers:
            server.wait()

    def __enter__(self) -> ServerGroup:
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as under `nohup`
            numbers.append(signal.SIGHUP)
        self._previous = {number: signal.signal(number, self._forward_signal) for number in numbers}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop_and_wait()
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _forward_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.stopping and number == signal.SIGHUP:
            return  # it can arrive twice, from the kernel and from a shell
        if not self.stopping:
            # Not `print`: the signal may have interrupted another one. The terminal may be closed.
            with contextlib.suppress(OSError):
                os.write(
                    1,
                    b"== Stopping: waiting for running programs to end; press Ctrl-C again to end them now\n",
                )
        self.stopping = True
        for server in self._servers:
            server.stop()
