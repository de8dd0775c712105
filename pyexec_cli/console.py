"""Terminal output: the program's bytes unchanged, and messages of this command on standard error."""

from __future__ import annotations

import errno
import os
import sys
from typing import Literal

from anyio import to_thread
from attrs import define, field

from .exit_codes import OutputFailed
from .flags import Flags
from .printable import print_message, printable


@define
class StatusLine:
    """A line on the terminal that shows the current phase and is overwritten by the next one.

    `enabled` is true if standard error is a terminal and no output has been printed yet.
    """

    enabled: bool
    _visible: bool = field(default=False, init=False)

    def show(self, text: str) -> None:
        """Replace the line."""
        if self.enabled:
            print_message(f"\r\x1b[Kpython-executor: {printable(text)}", end="")
            self._visible = True

    def clear(self) -> None:
        """Erase the line. It can be shown again."""
        if self._visible:
            print_message("\r\x1b[K", end="")
            self._visible = False

    def close(self) -> None:
        """Erase the line and disable it."""
        self.clear()
        self.enabled = False


@define
class Console:
    """Standard output and standard error of this command.

    `at_line_start`: the last output ended with a line feed."""

    flags: Flags
    status_line: StatusLine = field(init=False)
    at_line_start: bool = field(default=True, init=False)

    @status_line.default
    def _status_line(self) -> StatusLine:
        has_flag = self.flags.quiet or self.flags.verbose
        return StatusLine(not has_flag and sys.stderr is not None and sys.stderr.isatty())

    async def write(self, stream: Literal["stdout", "stderr"], data: bytes) -> None:
        """Write all bytes, unbuffered. Raise OutputFailed if that fails."""
        self.status_line.close()
        if data:
            # The reader of a pipe may block this write. In a thread, Ctrl-C still works.
            await to_thread.run_sync(_write, stream, data, abandon_on_cancel=True)
            self.at_line_start = data.endswith(b"\n")

    def info(self, text: str) -> None:
        """Print a message, unless `--quiet` was given."""
        if not self.flags.quiet:
            self.error(text)

    def debug(self, text: str) -> None:
        """Print a message if `--verbose` was given."""
        if self.flags.verbose and not self.flags.quiet:
            self.error(text)

    def error(self, text: str) -> None:
        """Print a message. It may contain text of servers, programs and packages."""
        self.status_line.clear()
        print_message(f"python-executor: {printable(text)}")
        self.at_line_start = True


def _write(stream: Literal["stdout", "stderr"], data: bytes) -> None:
    file = sys.stdout if stream == "stdout" else sys.stderr
    if file is None:  # closed by the parent; its descriptor may belong to another file now
        raise OutputFailed(errno.EBADF)
    left = memoryview(data)
    try:
        while left:
            left = left[os.write(file.fileno(), left) :]
    except OSError as error:
        raise OutputFailed(error.errno or errno.EIO) from error
