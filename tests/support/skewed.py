"""Run a server with a wrong clock.

python -P tests/support/skewed.py SECONDS, as the modules beside it are not the installed ones
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
    # Before anything else takes them from there.
    time.time = lambda: TIME() + SECONDS
    time.time_ns = lambda: TIME_NS() + round(SECONDS * 1e9)
    clock.now = wrong_now
    from pyexec.app import main

    main()
