"""The server as a child process of `make run`, from its first line to its end."""

from __future__ import annotations

import select
import signal
import subprocess
import time
from types import FrameType, TracebackType

from report import Failure
from virtualenv import BIN

_READY_SECONDS = 60.0
_ANNOUNCEMENT = "listening on "
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Server:
    """A running server, which gets the interrupts and terminations that this process gets.

    The first one asks it to stop, a second one kills it. Leaving the context stops it in any case.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        self.stopping = False
        # A process group of its own: else Ctrl-C would reach it twice, from the terminal and from here.
        self._process = subprocess.Popen(
            [BIN / "python-executor-server"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
            bufsize=0,
        )
        if self._process.stdout is None:
            raise AssertionError("a pipe was asked for")
        self._output = self._process.stdout

    def __enter__(self) -> Server:
        self._previous = {number: signal.signal(number, self._stop) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.terminate()
        self.wait()
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def wait_until_ready(self) -> str | None:
        """The address the server says it listens on; None if it was told to stop before.

        A Failure if it ends before, having said why itself, or stays silent for a minute.
        """
        deadline = time.monotonic() + _READY_SECONDS
        while line := self._line_before(deadline):
            _, found, address = line.strip().partition(_ANNOUNCEMENT)
            if found:
                return address
            print(line, end="", flush=True)
        if self.stopping:
            return None
        if self._process.poll() is None and time.monotonic() >= deadline:
            raise Failure(f"The server was not ready after {_READY_SECONDS:.0f} seconds.")
        raise Failure(f"The server did not start: it ended with {self._process.wait()}.")

    def wait(self) -> int:
        """Pass on what the server prints until it ends; its exit code."""
        for line in self._output:
            print(line.decode(errors="replace"), end="", flush=True)
        return self._process.wait()

    def _line_before(self, deadline: float) -> str:
        """The next line of output; empty at its end, or at the deadline."""
        readable, _, _ = select.select([self._output], [], [], max(0.0, deadline - time.monotonic()))
        return self._output.readline().decode(errors="replace") if readable else ""

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._process.send_signal(signal.SIGKILL if self.stopping else signal.SIGTERM)
        self.stopping = True
