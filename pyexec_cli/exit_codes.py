"""Exit codes, and how errors are reported."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from .printable import print_message, printable

if TYPE_CHECKING:
    from pyexec_client import InvalidRequest

USAGE = 2
NOT_RUN = 125
INTERRUPTED = 130
PIPE_CLOSED = 141

_SOURCES = {
    "config.timeout_seconds": "--timeout",
    "config.memory_mb": "--memory",
    "config.disk_mb": "--disk",
    "config.cpu_shares": "--cpu",
    "config.cpus": "--cpus",
    "config.cpu_seconds": "--cpu-seconds",
    "config.network_disabled": "--network",
    "docker_image": "--image",
    "entrypoint": "--entrypoint",
    "requirements_txt": "--requirements",
    "pre_commands": "--pre-command",
    "env_vars": "--env",
    "stdin": "--stdin",
    "webhook_url": "--webhook-url",
    "timeout_seconds": "--timeout",
    "idle_timeout_seconds": "--idle-timeout",
    "lifetime_seconds": "--lifetime",
    "script_args": "arguments after --",
    "output_files": "--output-file",
    **dict.fromkeys(("tar", "files", "code", "metadata", "body"), ""),
}
"""The flag or argument that sets a field of a request. Users do not see the fields."""


class OutputFailed(Exception):
    """Writing the program's output failed. `number` is the errno."""

    def __init__(self, number: int) -> None:
        super().__init__(os.strerror(number))
        self.number = number


def exit_code_of(status: str, exit_code: int | None, error_type: str | None) -> int:
    """Return the exit code for the result of a run."""
    match status, error_type:
        case "completed", _:
            return exit_code or 0
        case "failed", "timeout" | "cpu_limit":
            return 124
        case "failed", "out_of_memory":
            return 137
    return NOT_RUN


def report_error(error: Exception) -> int | None:
    """Print an error and return the exit code for it, or None for an unexpected error."""
    # The client is loaded already if it raised the error. A top-level import would double the time of `--version`.
    from pyexec_client import InvalidRequest, PyexecError, Unauthorized

    match error:
        case OutputFailed(number=errno.EPIPE):
            return PIPE_CLOSED
        case OutputFailed(number=number):
            return _print_error(f"cannot write the output: {os.strerror(number)}", NOT_RUN)
        case InvalidRequest():
            return _print_error(f"request rejected by the server: {_rejection(error)}", USAGE)
        case Unauthorized():
            return _print_error(f"{error} (set a token with --token or PYEXEC_TOKEN)", NOT_RUN)
        case PyexecError():
            return _print_error(str(error), NOT_RUN)
        case OSError(filename=str() as name):
            return _print_error(f"{name}: {error.strerror}", NOT_RUN)
        case OSError():
            return _print_error(error.strerror or str(error), NOT_RUN)
        case ValueError():
            return _print_error(str(error), USAGE)
    return None


def _rejection(error: InvalidRequest) -> str:
    """Return the server's message, and the flag that is wrong."""
    field = error.field or ""
    source = _SOURCES.get(field.partition("[")[0], field)
    return f"{error.message} ({source})" if source and source not in error.message else error.message


def _print_error(text: str, code: int) -> int:
    print_message(f"python-executor: {printable(text)}")
    return code
