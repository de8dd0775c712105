"""The program `python-executor-server` and its command line."""

import asyncio
import gc
import logging
import os
import signal
import sys
from importlib.metadata import version

import uvloop

from pyexec.errors import ExecutorError, first_error
from pyexec.logs import Logs, printable
from pyexec.settings_parser import describe_settings, read_settings

WRONG_USAGE = 2
USAGE = """\
python-executor-server: run untrusted Python in isolated sandboxes

  python-executor-server            serve until SIGTERM, SIGHUP or Ctrl-C; a later SIGINT stops waiting for
                                    programs
  python-executor-server --check    check whether a server with these settings can work on this machine, and print how
                                    to fix problems; --check --json prints JSON. It is safe while a server runs, and
                                    removes everything that it creates except the volume that all servers share
  python-executor-server --version  print the version
  python-executor-server --help     print this help

All settings are environment variables; the defaults are in brackets. If a setting is wrong or unknown, the server does
not start: it prints one line with the setting, its value and the allowed values. Settings that are on or off also take
true and false, or 1 and 0.

"""


def main() -> None:
    """Run the program with the arguments of the command line."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Until the event loop handles it, Ctrl-C ends the process as SIGTERM does, without a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    match sys.argv[1:]:
        case []:
            _serve()
        case ["--check"]:
            _check(as_json=False)
        case ["--check", "--json"] | ["--json", "--check"]:
            _check(as_json=True)
        case ["--help" | "-h"]:
            _print(f"{USAGE}{describe_settings()}")
        case ["--version"]:
            _print(f"python-executor-server {version('python-executor')}")
        case arguments:
            given = " ".join(arguments)
            print(
                f"python-executor-server: unknown arguments: {given}; allowed: --check [--json], --help or --version",
                file=sys.stderr,
            )
            sys.exit(WRONG_USAGE)


def _print(text: str) -> None:
    """Print `text`. If the reader closes the pipe early, as `head` does, end quietly by SIGPIPE."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    print(printable(text))


def _check(*, as_json: bool) -> None:
    """Run the preflight checks, print their results, and exit with 0 if a server could work, else with 1."""
    from pyexec.preflight import check_result, run_preflight  # a server does not need it

    logging.disable()  # the results already contain what the checked parts would log
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        results = runner.run(run_preflight())
    _print(check_result.as_json(results) if as_json else check_result.as_text(results))
    sys.exit(0 if check_result.all_passed(results) else 1)


def _serve() -> None:
    failure: BaseException | None = None
    logs: Logs | None = None
    try:
        settings = read_settings(os.environ)
        logs = Logs(settings.log_format, settings.log_level)
        gc.disable()  # imports leave no garbage; looking for it takes a tenth of their time
        from pyexec.server import serve

        gc.enable()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings, logs))
    except* ExecutorError as errors:
        failure = first_error(errors)
    if failure is None:
        return
    # Exit here and not above: in an `except*` block, Python 3.11.2 would wrap the exit in a group with a traceback.
    if logs is None:
        sys.exit(f"python-executor-server: {printable(str(failure))}")
    logs.log_fatal(failure)
    sys.exit(1)


if __name__ == "__main__":
    main()
