"""Entry point of `python-executor`: run one command and exit with its exit code."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    import asyncclick


def main() -> NoReturn:
    """Run the command line and exit."""
    # Exit at once on Ctrl-C. Python's KeyboardInterrupt can be lost if it is raised inside a finalizer. `run`
    # installs a handler of its own while an execution is in progress.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda number, _frame: os._exit(128 + number))
    try:
        code = _run()
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        code = 141
    _exit(code)


def _run() -> int:
    # Imports create many objects and hardly any garbage. Looking for it takes a tenth of the time of a start.
    gc.set_threshold(100_000)
    # Imported here, so that Ctrl-C works during the imports too.
    import anyio
    import asyncclick

    from . import exit_codes
    from .commands import cli
    from .interrupts import wake_on_signals

    async def command_line() -> object:
        wake_on_signals()
        return await cli.main(prog_name="python-executor", standalone_mode=False)

    try:
        code = anyio.run(command_line)
    except asyncclick.ClickException as error:
        _show(error)
        return error.exit_code
    except asyncclick.Abort:
        return exit_codes.INTERRUPTED
    except Exception as error:
        reported = exit_codes.report_error(error)
        if reported is None:
            raise
        return reported
    return code if isinstance(code, int) else 0


def _show(error: asyncclick.ClickException) -> None:
    """Print a usage error on standard error, if that is possible."""
    from .printable import print_message

    text = io.StringIO()
    error.show(text)
    print_message(text.getvalue(), end="")


def _exit(code: int) -> NoReturn:
    """Exit without waiting for threads: one may be blocked forever on reading or writing a pipe."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        code = code or 1
    with contextlib.suppress(OSError):
        if sys.stderr is not None:
            sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
