"""Where things are printed: the script's bytes as they are, our own words on standard error."""

from __future__ import annotations

import errno
import os
import sys
from typing import Literal

from anyio import to_thread
from attrs import define, field, frozen

from .exits import OutputFailed
from .flags import Flags


@define
class StatusLine:
    """One line on a terminal that is written over as things go on, until output comes. `shown`: there is a
    terminal, and nothing has been printed on it yet."""

    shown: bool
    _written: bool = field(default=False, init=False)

    def show(self, text: str) -> None:
        if self.shown:
            print(f"\r\x1b[Kpython-executor: {text}", end="", file=sys.stderr, flush=True)
            self._written = True

    def clear(self) -> None:
        """Take the line away; another may follow."""
        if self._written:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._written = False

    def end(self) -> None:
        """Take the line away for good."""
        self.clear()
        self.shown = False


@frozen
class Console:
    """This process' output."""

    flags: Flags
    line: StatusLine = field(init=False)

    @line.default
    def _line(self) -> StatusLine:
        wordy = self.flags.quiet or self.flags.verbose
        return StatusLine(not wordy and sys.stderr is not None and sys.stderr.isatty())

    async def write(self, stream: Literal["stdout", "stderr"], data: bytes) -> None:
        """Write these bytes at once, all of them; OutputFailed if that cannot be."""
        self.line.end()
        # A reader may take its time. Waiting in a thread leaves Ctrl-C answered meanwhile.
        await to_thread.run_sync(_write, stream, data, abandon_on_cancel=True)

    def note(self, text: str) -> None:
        """Something worth knowing."""
        if not self.flags.quiet:
            self.problem(text)

    def detail(self, text: str) -> None:
        """Something for those who asked for every step."""
        if self.flags.verbose and not self.flags.quiet:
            self.problem(text)

    def problem(self, text: str) -> None:
        """Something that went wrong."""
        self.line.clear()
        print(f"python-executor: {text}", file=sys.stderr, flush=True)


def _write(stream: Literal["stdout", "stderr"], data: bytes) -> None:
    file = sys.stdout if stream == "stdout" else sys.stderr
    if file is None:  # closed by the caller; its descriptor's number may be something else's by now
        raise OutputFailed(errno.EBADF)
    left = memoryview(data)
    try:
        while left:
            left = left[os.write(file.fileno(), left) :]
    except OSError as problem:
        raise OutputFailed(problem.errno or errno.EIO) from problem
