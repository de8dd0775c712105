"""The program `python-executor-server`."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version

import uvloop

from pyexec.errors import ExecutorError, first_error
from pyexec.logs import Logs
from pyexec.preflight.findings import Finding, as_json, as_text, is_well
from pyexec.preflight.preflight import run_preflight
from pyexec.server import serve
from pyexec.settings_help import describe_settings
from pyexec.settings_parser import read_settings

WRONG_USAGE = 2
USAGE = """\
python-executor-server: runs unvetted Python in throw-away sandboxes

  python-executor-server            serve until SIGTERM; a second one ends what still runs
  python-executor-server --check    say whether a server with these settings could work here, and what to mend;
                                    with --json for machines. Leaves nothing behind (but the
                                    volume that servers share), also beside a running server
  python-executor-server --version  print the version
  python-executor-server --help     print this

All settings are environment variables. What is wrong stops the start with one line that says what is allowed.
"""


def main() -> None:
    """The entry point."""
    match sys.argv[1:]:
        case []:
            _serve()
        case ["--check"]:
            _check(as_text)
        case ["--check", "--json"] | ["--json", "--check"]:
            _check(as_json)
        case ["--help" | "-h"]:
            _tell(f"{USAGE}{describe_settings()}")
        case ["--version"]:
            _tell(f"python-executor-server {version('python-executor')}")
        case arguments:
            given = " ".join(arguments)
            print(
                f"python-executor-server takes --check, --json with it, --help or --version, not {given}",
                file=sys.stderr,
            )
            sys.exit(WRONG_USAGE)


def _tell(text: str) -> None:
    """Prints it. Whoever reads no further, as `head` does, ends this quietly, as any program in a pipe."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    print(text)


def _check(shown: Callable[[Sequence[Finding]], str]) -> None:
    """Exits with 0 when a server would work, else with 1."""
    logging.disable()  # what the parts would log is what the findings say
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        findings = runner.run(run_preflight())
    _tell(shown(findings))
    sys.exit(0 if is_well(findings) else 1)


def _serve() -> None:
    failure: BaseException | None = None
    logs: Logs | None = None
    try:
        settings = read_settings(os.environ)
        logs = Logs(settings.log_format, settings.log_level)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings, logs))
    except* ExecutorError as errors:
        failure = first_error(errors)
    if failure is None:
        return
    # Not raised above: Python 3.11.2 would wrap the exit in a group, with a traceback.
    if logs is None:
        sys.exit(f"python-executor-server: {failure}")
    logs.fail(failure)
    sys.exit(1)


if __name__ == "__main__":
    main()
