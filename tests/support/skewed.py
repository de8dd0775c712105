"""Run a server with a wrong clock.

Usage: python -P tests/support/skewed.py SECONDS. -P prevents imports of the modules in the same directory.
"""

import sys
import time
from datetime import UTC, datetime, timedelta

from pyexec.services import clock

SECONDS = float(sys.argv.pop(1))
TIME, TIME_NS = time.time, time.time_ns


def wrong_now() -> datetime:
    return datetime.now(UTC) + timedelta(seconds=SECONDS)


if __name__ == "__main__":
    # Patch the clock before other modules import it.
    time.time = lambda: TIME() + SECONDS
    time.time_ns = lambda: TIME_NS() + round(SECONDS * 1e9)
    clock.now = wrong_now
    from pyexec.app import main

    main()
