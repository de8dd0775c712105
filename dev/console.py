"""Messages to the person who runs a script of this folder: steps, errors, exit codes."""

from __future__ import annotations

import sys
from collections.abc import Callable


class SetupError(Exception):
    """A script cannot continue. The message is the complete sentence that is printed."""


def print_step(text: str) -> None:
    """Print one line of progress."""
    print(f"== {text}", flush=True)


def run_main(main: Callable[[], int]) -> int:
    """Run `main` and return its exit code: 1 with a message on a `SetupError`, 130 on Ctrl-C."""
    try:
        return main()
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        return 130
