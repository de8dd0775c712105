"""Retry policy: how often to retry, and how long to wait before each retry."""

from __future__ import annotations

import random
from collections.abc import Iterator

from attrs import field, frozen
from attrs.validators import ge, gt


@frozen(kw_only=True)
class Retry:
    """Retry up to `attempts` times with exponential backoff.

    The pauses double from `first` up to `longest` seconds. Each pause is shortened by a random amount of up to
    half, so that many clients do not retry at the same moment.
    """

    attempts: int = field(default=3, validator=ge(0))
    first: float = field(default=0.2, validator=gt(0))
    longest: float = field(default=30.0, validator=gt(0))

    def pauses(self) -> Iterator[float]:
        """Yield the pause before each retry, in seconds."""
        for attempt in range(self.attempts):
            yield min(self.first * 2**attempt, self.longest) * random.uniform(0.5, 1)  # noqa: S311 no secret


#: Policy of requests that must not be sent twice.
NO_RETRY = Retry(attempts=0)
