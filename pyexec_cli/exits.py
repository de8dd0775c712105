"""Exit codes: the program's own where it ran, ours where it did not."""

from __future__ import annotations

import errno
import os
import sys

USAGE = 2
NOT_RUN = 125
INTERRUPTED = 130
PIPE_CLOSED = 141


class OutputFailed(Exception):
    """What the program printed cannot be written here. `number` is the errno."""

    def __init__(self, number: int) -> None:
        super().__init__(os.strerror(number))
        self.number = number


def of_result(status: str, exit_code: int | None, error_type: str | None) -> int:
    """The exit code that stands for a run's outcome."""
    match status, error_type:
        case "completed", _:
            return exit_code or 0
        case "failed", "timeout":
            return 124
        case "failed", "out_of_memory":
            return 137
    return NOT_RUN


def explain(problem: Exception) -> int | None:
    """Tell the person what went wrong and return the exit code; None for a fault of our own."""
    # Known to be loaded by now if one of its errors was raised; loading it for `--version` would take longer
    # than all the rest.
    from pyexec_client import InvalidRequest, PyexecError, Unauthorized

    match problem:
        case OutputFailed(number=errno.EPIPE):
            return PIPE_CLOSED
        case OutputFailed(number=number):
            return _say(f"cannot write the output: {os.strerror(number)}", NOT_RUN)
        case InvalidRequest():
            return _say(f"the server refuses this: {problem}", USAGE)
        case Unauthorized():
            return _say(f"{problem} (give a token with --token or PYEXEC_TOKEN)", NOT_RUN)
        case PyexecError():
            return _say(str(problem), NOT_RUN)
        case OSError(filename=str() as name):
            return _say(f"{name}: {problem.strerror}", NOT_RUN)
        case OSError():
            return _say(problem.strerror or str(problem), NOT_RUN)
        case ValueError():
            return _say(str(problem), USAGE)
    return None


def _say(text: str, code: int) -> int:
    print(f"python-executor: {text}", file=sys.stderr)
    return code
