"""Bound the cancellations of calls that wait for their executions."""

from collections.abc import Iterator
from contextlib import contextmanager

import anyio
from attrs import define, field

WAITING_MAX = 32
WAIT_SECONDS = 10.0


@define
class WaitingCancellations:
    """The cancellations that wait on this replica: at most `WAITING_MAX`, each for at most `WAIT_SECONDS`."""

    _scopes: list[anyio.CancelScope] = field(factory=list)

    @contextmanager
    def wait(self) -> Iterator[None]:
        """Cancel the body after `WAIT_SECONDS`, or as the oldest one when too many others wait."""
        with anyio.move_on_after(WAIT_SECONDS) as scope:
            self._scopes.append(scope)
            if len(self._scopes) > WAITING_MAX:
                self._scopes.pop(0).cancel()
            try:
                yield
            finally:
                if scope in self._scopes:
                    self._scopes.remove(scope)
