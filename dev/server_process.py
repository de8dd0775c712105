"""Servers as child processes of `make run` and `make cluster`, from their first line to their end."""

from __future__ import annotations

import contextlib
import select
import signal
import subprocess
import time
from pathlib import Path
from types import FrameType, TracebackType

from console import SetupError, print_step
from consul_agent import ConsulAgent
from subprocesses import last_log_line
from virtualenv import BIN

_READY_SECONDS = 60.0
_ANNOUNCEMENT = "listening on "
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_KILLED_AT = 3


class ServerProcess:
    """A running server. What it logs goes to this terminal, or to the end of the file `log`."""

    def __init__(self, environment: dict[str, str], log: Path | None = None) -> None:
        self.asked = 0
        self._log = log
        with contextlib.ExitStack() as stack:
            # A process group of its own: else Ctrl-C would reach it twice, from the terminal and from here.
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
            raise AssertionError("a pipe was asked for")
        self._output = self._process.stdout

    @property
    def stopping(self) -> bool:
        """Whether it was asked to."""
        return self.asked > 0

    def stop(self) -> None:
        """Ask it to stop; the second time, to end what still runs at once; the third time, kill it."""
        self.asked += 1
        self._process.send_signal(signal.SIGTERM if self.asked < _KILLED_AT else signal.SIGKILL)

    def wait_until_ready(self, agent: ConsulAgent | None = None) -> str | None:
        """The address the server says it listens on; None if it was told to stop before.

        A SetupError if it ends before, having said why itself, or stays silent for a minute, or if the Consul
        that it waits for is no more.
        """
        deadline = time.monotonic() + _READY_SECONDS
        while line := self._line_before(deadline, agent):
            _, found, address = line.strip().partition(_ANNOUNCEMENT)
            if found:
                return address
            print(line, end="", flush=True)
        if self.stopping:
            return None
        if self._process.poll() is None and time.monotonic() >= deadline:
            raise SetupError(
                f"The server was not ready after {_READY_SECONDS:.0f} seconds{self._last_log_line()}"
            )
        raise SetupError(
            f"The server did not start: it ended with {self._process.wait()}{self._last_log_line()}"
        )

    def wait(self) -> int:
        """Pass on what the server prints until it ends; its exit code."""
        for line in self._output:
            print(line.decode(errors="replace"), end="", flush=True)
        return self._process.wait()

    def fileno(self) -> int:
        """What `select` finds readable when the server prints something, or ends."""
        return self._output.fileno()

    def _line_before(self, deadline: float, agent: ConsulAgent | None) -> str:
        """The next line of output; empty at its end, or at the deadline."""
        watched: list[ServerProcess | ConsulAgent] = [self] if agent is None else [self, agent]
        readable, _, _ = select.select(watched, [], [], max(0.0, deadline - time.monotonic()))
        if agent in readable and agent is not None:
            raise agent.failure()
        return self._output.readline().decode(errors="replace") if readable else ""

    def _last_log_line(self) -> str:
        return "." if self._log is None else f", {last_log_line(self._log)}"


class ServerGroup:
    """Servers that get the interrupts and terminations that this process gets.

    The first one asks them all to stop, a second one to end at once what still runs, a third one kills them. Leaving
    the context stops them in any case.
    """

    def __init__(self) -> None:
        self.stopping = False
        self._servers: list[ServerProcess] = []

    def start(self, environment: dict[str, str], log: Path | None = None) -> ServerProcess:
        """One more; it is asked to stop at once if the others have been."""
        server = ServerProcess(environment, log)
        self._servers.append(server)
        if self.stopping:
            server.stop()
        return server

    def end(self) -> None:
        """Ask all to stop that have not been asked, and wait until they have."""
        self.stopping = True
        for server in self._servers:
            if not server.stopping:
                server.stop()
        for server in self._servers:
            server.wait()

    def __enter__(self) -> ServerGroup:
        self._previous = {number: signal.signal(number, self._pass_on) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _pass_on(self, _number: int, _frame: FrameType | None) -> None:
        if not self.stopping:
            print_step("Stopping: programs may end by themselves for a while; Ctrl-C again ends them at once")
        self.stopping = True
        for server in self._servers:
            server.stop()
