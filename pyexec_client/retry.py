"""How often to try again, and when."""

from __future__ import annotations

import random
from collections.abc import Iterator

from attrs import field, frozen
from attrs.validators import ge, gt


@frozen(kw_only=True)
class Retry:
    """At most `attempts` more tries. The pauses before them double from `first` up to `longest` seconds,
    each shortened at random by up to a half, so that many clients do not come back at the same moment.
    """

    attempts: int = field(default=3, validator=ge(0))
    first: float = field(default=0.2, validator=gt(0))
    longest: float = field(default=30.0, validator=gt(0))

    def pauses(self) -> Iterator[float]:
        """The pauses in seconds, one for each further try."""
        for attempt in range(self.attempts):
            yield min(self.first * 2**attempt, self.longest) * random.uniform(0.5, 1)  # noqa: S311 no secret


#: For something that is not done twice, whatever happens.
NEVER = Retry(attempts=0)
