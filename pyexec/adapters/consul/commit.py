"""Commit an append as one Consul transaction, although answers can be lost."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import anyio
from attrs import define, field

from pyexec.adapters.consul.http import OutcomeUnknown
from pyexec.adapters.consul.kv import ConsulKV, Operation, TransactionConflict
from pyexec.errors import ConsulSessionLost, Unavailable

logger = logging.getLogger(__name__)

APPEND_SECONDS: Final = 5.0
"""How long an append with an unknown outcome is retried before it fails."""
RETRY_SECONDS: Final = 0.2

Fence = Callable[[], Operation]
"""Returns the operation that fails a transaction once the Consul session of this replica is lost."""


@define
class Commit:
    """One append to the log `name`, which may need several attempts. `fence` checks this replica's session.

    `is_written` reads from the log whether an earlier attempt has succeeded."""

    kv: ConsulKV
    name: str
    fence: Fence
    is_written: Callable[[], Awaitable[bool]]
    _deadline: float = field(factory=lambda: anyio.current_time() + APPEND_SECONDS)
    _sent: bool = False

    async def run(self, operations: Sequence[Operation]) -> None:
        """Run a transaction of the fence and of `operations` until its outcome is known.

        Raises `TransactionConflict` if nothing was written, and `Unavailable` if the outcome stays unknown."""
        while True:
            try:
                await self.kv.transaction([self._own_fence(), *operations])
            except OutcomeUnknown as error:
                # It may have been written, or be written later. A retry cannot write it twice.
                if anyio.current_time() >= self._deadline:
                    raise
                logger.warning("appending to %s failed; retrying: %s", self.name, error)
                self._sent = True
                await anyio.sleep(RETRY_SECONDS)
            except TransactionConflict:
                if self._sent and await self.is_written():
                    return
                raise
            else:
                return

    def _own_fence(self) -> Operation:
        """Return the fence. After a first attempt, a lost session no longer means that nothing was written."""
        try:
            return self.fence()
        except ConsulSessionLost as error:
            if self._sent:
                raise Unavailable(f"the outcome of an append is unknown: {error}") from error
            raise
