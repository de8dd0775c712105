"""Predict when sandboxes in use come back, from those that did. Pure code; see docs/design/pool.md."""

import math

from attrs import define

SOON_FACTOR = 2.0
"""A program that has run longer than this multiple of the usual time will not end soon, as far as the pool knows."""
SOON_SECONDS_MIN = 0.05
DECAY_SECONDS = 10.0
"""Time constant of the decay of the time that requests have waited."""


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
        self._waited = self._waited * math.exp((self._updated - now) / DECAY_SECONDS) + waited
        self._updated = now
        if self._waited < start_seconds:
            return False
        self._waited = 0.0
        return True
