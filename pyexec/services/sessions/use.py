"""Track the use of an interpreter session, to close it at the end of its lifetime or when it has been idle too long."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

import anyio
from attrs import define, field

from pyexec.aio import Broadcast
from pyexec.domain.session import Session
from pyexec.domain.session_events import CloseReason
from pyexec.services.clock import now


@define(eq=False)
class SessionUse:
    """Counts the cells and the transfers of files that run or wait. `changed` is notified of every change."""

    changed: Broadcast
    _count: int = 0
    _ended_at: float = field(factory=anyio.current_time)
    """The end of the last use, in seconds of the monotonic clock."""

    @contextmanager
    def during(self) -> Iterator[None]:
        """Keep the session from being idle within the block."""
        self._count += 1
        self.changed.notify_all()
        try:
            yield
        finally:
            self._count -= 1
            self._ended_at = anyio.current_time()
            self.changed.notify_all()

    @property
    def idle_since(self) -> datetime | None:
        """The end of the last use; None while the session is in use."""
        if self._count:
            return None
        return now() - timedelta(seconds=anyio.current_time() - self._ended_at)

    async def wait_for_deadline(self, session: Session) -> CloseReason:
        """Wait until the session has reached its lifetime, or was idle for too long. Return which."""
        age = (now() - session.created_at).total_seconds()
        end_of_life = anyio.current_time() + session.spec.lifetime_seconds - age
        while True:
            changed = self.changed.next_event()
            idle_until = math.inf if self._count else self._ended_at + session.spec.idle_timeout_seconds
            with anyio.move_on_after(min(end_of_life, idle_until) - anyio.current_time()):
                await changed.wait()
                continue
            return CloseReason.LIFETIME if end_of_life <= idle_until else CloseReason.IDLE
