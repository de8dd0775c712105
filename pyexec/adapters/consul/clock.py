"""Whether this machine's clock agrees with Consul's, and so with those of the other replicas."""

import logging
import time
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from math import inf
from typing import Final

from attrs import define

logger = logging.getLogger(__name__)

SKEW_SECONDS_MAX: Final = 5.0
"""Consul tells whole seconds, and an answer may be some seconds under way."""
CHECK_SECONDS: Final = 30.0


@define
class ClockCheck:
    """Compares now and then, and says so once when the clocks differ, and when they agree again. Nothing depends on
    their agreement but the times that callers see, and how long what has ended is kept."""

    skew_seconds: float = 0.0
    """How far this machine's clock was ahead of Consul's when they were compared last."""
    _due_at: float = -inf
    _skewed: bool = False

    def compare(self, where: object, headers: Mapping[str, str]) -> None:
        """Takes an answer that has just come from Consul."""
        if time.monotonic() < self._due_at or "Date" not in headers:
            return
        self._due_at = time.monotonic() + CHECK_SECONDS
        try:
            theirs = parsedate_to_datetime(headers["Date"]).replace(tzinfo=UTC).timestamp()
        except ValueError:
            return  # somebody between us and Consul has rewritten it
        self.skew_seconds = skew = time.time() - theirs
        skewed = abs(skew) > SKEW_SECONDS_MAX
        if skewed and not self._skewed:
            logger.error(
                "this machine's clock is %.0f s %s that of Consul at %s: times that callers see are wrong, and what "
                "has ended is kept for longer or shorter than PYEXEC_CLEANUP_TTL",
                abs(skew),
                "ahead of" if skew > 0 else "behind",
                where,
            )
        elif self._skewed and not skewed:
            logger.info("this machine's clock agrees with that of Consul at %s again", where)
        self._skewed = skewed
