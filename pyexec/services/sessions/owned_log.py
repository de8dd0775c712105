"""The event log of an interpreter session that this replica owns."""

from collections.abc import Sequence

import anyio
from attrs import define, field

from pyexec.domain.session import Session, apply_session, is_legal
from pyexec.domain.session_events import SessionEvent
from pyexec.errors import Conflict
from pyexec.ports import SessionLog


@define(eq=False)
class OwnedLog:
    """Appends the events of a session as long as `replica` owns it."""

    replica: str
    log: SessionLog
    state: Session
    left: anyio.Event = field(factory=anyio.Event)
    """Set once the session is closed, or belongs to another replica."""
    _appending: anyio.Lock = field(factory=anyio.Lock)

    @property
    def is_owned(self) -> bool:
        """True if, by the known events, the session is open and belongs to this replica."""
        return self.state.is_open and self.state.owner == self.replica

    async def append(self, event: SessionEvent) -> None:
        """Append an event. After a conflict, apply what is in the log, and decide again. Do nothing if it is
        no longer legal.

        It can be called again with the same event if the log did not answer."""
        async with self._appending:
            while self.is_owned and is_legal(self.state, event):
                try:
                    with anyio.CancelScope(shield=True):
                        await self.log.append(self.state.id, self.state.seq, [event])
                        self._apply([event])
                        return
                except Conflict:
                    events = await self.log.read(self.state.id)
                    self.catch_up(events)
                    if event in events:
                        return

    def catch_up(self, events: Sequence[SessionEvent]) -> None:
        """Apply the events that are not known yet. `events` are all events of the log."""
        self._apply(events[self.state.seq :])

    def _apply(self, events: Sequence[SessionEvent]) -> None:
        for event in events:
            self.state = apply_session(self.state.id, self.state, event)
        if not self.is_owned:
            self.left.set()
