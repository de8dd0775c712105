"""Sandboxes that come back after a program: which of them run another one, and when those in use will come back.

See docs/design/sandbox-reuse.md and docs/design/pool.md."""

import math

import anyio
from attrs import define, frozen

from pyexec.sandbox.sandbox import Sandbox

AGE_SECONDS_MAX = 600.0
"""Maximum age of a reused sandbox. So a tag that now names another image takes effect after this time at the latest."""
SOON_FACTOR = 2.0
"""A program that has run longer than this multiple of the usual time will not end soon, as far as the pool knows."""
SOON_SECONDS_MIN = 0.05
WAIT_DECAY_SECONDS = 10.0
"""Time constant of the decay of the time that requests have waited."""


@frozen(kw_only=True)
class ReusePolicy:
    """The operator's choice: whether sandboxes are used again, and for how many programs.

    `log_bytes_max` is what a container's log may hold before the next program, whose output must fit into the rest."""

    enabled: bool
    runs_max: int
    log_bytes_max: int

    def allows(self, sandbox: Sandbox) -> bool:
        """Return True if this sandbox may run another program."""
        return (
            self.enabled
            and not sandbox.was_interrupted
            and sandbox.runs < self.runs_max
            and sandbox.log_bytes < self.log_bytes_max
            and anyio.current_time() < sandbox.created_at + AGE_SECONDS_MAX
        )


@define
class ReturnForecast:
    """Records how long programs of a kind keep their sandboxes, and how long requests have waited for returns.

    `seconds` is a moving average; infinite until the first sandbox has come back. Times are of any monotonic clock."""

    seconds: float = math.inf
    _waited: float = 0.0
    _updated: float = 0.0

    def record(self, seconds: float) -> None:
        """Record that a sandbox came back clean after so many seconds in use."""
        self.seconds = seconds if math.isinf(self.seconds) else self.seconds + (seconds - self.seconds) / 4

    @property
    def soon_seconds(self) -> float:
        """Return after how many seconds in use a sandbox no longer counts as one that comes back soon."""
        return 0.0 if math.isinf(self.seconds) else SOON_SECONDS_MIN + SOON_FACTOR * self.seconds

    def record_wait(self, waited: float, start_seconds: float, now: float) -> bool:
        """Record that a request waited this long for a return. Return True if one more sandbox should start.

        That is so when the recorded waits add up to `start_seconds`. Then the sum restarts at 0."""
        self._waited = self._waited * math.exp((self._updated - now) / WAIT_DECAY_SECONDS) + waited
        self._updated = now
        if self._waited < start_seconds:
            return False
        self._waited = 0.0
        return True
