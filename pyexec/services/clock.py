"""The wall clock and randomness, which the domain takes as arguments."""

import os
import time
from datetime import UTC, datetime

from pyexec.domain import ids


def now() -> datetime:
    """This moment, in UTC."""
    return datetime.now(UTC)


def nonce() -> str:
    """What no other event has."""
    return os.urandom(8).hex()


def new_execution_id() -> str:
    """A fresh id, later than those made before."""
    return ids.execution_id(time.time_ns(), os.urandom(8))
