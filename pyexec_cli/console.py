"""Where things are printed: the script's bytes as they are, our own words on standard error."""

from __future__ import annotations

import errno
import os
import sys
from typing import Literal

from anyio import to_thread
from attrs import frozen

from .exits import OutputFailed
from .flags import Flags


@frozen
class Console:
    """This process' output."""

    flags: Flags

    async def write(self, stream: Literal["stdout", "stderr"], data: bytes) -> None:
        """Write these bytes at once, all of them; OutputFailed if that cannot be."""
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
