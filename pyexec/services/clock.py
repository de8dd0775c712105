"""The wall clock and randomness. The domain takes them as arguments."""

import os
import time
from datetime import UTC, datetime

from pyexec.domain import ids


def now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


def nonce() -> str:
    """Return 16 random hexadecimal digits, which make an event unique."""
    return os.urandom(8).hex()


def new_execution_id(*, after: str | None = None) -> str:
    """Return a new execution id. Ids sort by the time of their creation, and always after the id `after`."""
    return ids.execution_id(time.time_ns(), os.urandom(8), after=after)


def new_session_id() -> str:
    """Return a new session id. Ids sort by the time of their creation."""
    return ids.session_id(time.time_ns(), os.urandom(8))
