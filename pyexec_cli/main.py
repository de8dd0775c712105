"""The program `python-executor`: runs one command and turns whatever happens into an exit code."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and leave."""
    # Python's own way, an exception anywhere, can get lost in a finalizer. Whoever has something to do first
    # (a run under way) takes the signal over for that time.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda number, _frame: os._exit(128 + number))
    try:
        code = _run()
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        code = 141
    _leave(code)


def _run() -> int:
    # Imported here so that Ctrl-C is answered during the imports too.
    import anyio
    import asyncclick

    from . import exits
    from .group import cli

    async def command_line() -> object:
        return await cli.main(prog_name="python-executor", standalone_mode=False)

    try:
        code = anyio.run(command_line)
    except asyncclick.ClickException as problem:
        problem.show()
        return problem.exit_code
    except asyncclick.Abort:
        return exits.INTERRUPTED
    except Exception as problem:
        explained = exits.explain(problem)
        if explained is None:
            raise
        return explained
    return code if isinstance(code, int) else 0


def _leave(code: int) -> NoReturn:
    """Leave without waiting for threads: one may still be blocked on a pipe that nobody reads or writes."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            code = code or 1
    os._exit(code)


if __name__ == "__main__":
    main()
