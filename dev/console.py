"""What setting up says to the person who waits: progress, and one sentence when it cannot go on."""

from __future__ import annotations

import sys
from collections.abc import Callable


class SetupError(Exception):
    """Setting up cannot go on; the text is the whole sentence a person sees."""


def print_step(text: str) -> None:
    print(f"== {text}", flush=True)


def run_main(story: Callable[[], int]) -> int:
    """Run a whole story: its exit code, 1 with its sentence if it failed, 130 if it was interrupted."""
    try:
        return story()
    except SetupError as failure:
        print(f"error: {failure}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        return 130
