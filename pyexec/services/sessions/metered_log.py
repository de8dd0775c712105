"""The log of interpreter sessions as the services use it: each event that this replica writes is counted."""

from collections.abc import Sequence

from attrs import frozen

from pyexec.domain.session_events import (
    InterpreterRestarted,
    SessionAdopted,
    SessionClosed,
    SessionEvent,
    SessionOpened,
)
from pyexec.metrics import INTERPRETER_RESTARTS, SESSIONS_ADOPTED, SESSIONS_CLOSED, SESSIONS_OPENED, Meter
from pyexec.ports import SessionIndex, SessionLog


@frozen
class MeteredSessionLog:
    """Counts the events that go into another `ports.SessionLog`."""

    log: SessionLog
    meter: Meter

    async def append(
        self, session_id: str, after: int, events: Sequence[SessionEvent], *, fence: str | None = None
    ) -> None:
        await self.log.append(session_id, after, events, fence=fence)
        for event in events:
            match event:
                case SessionOpened():
                    self.meter.count(SESSIONS_OPENED)
                case SessionAdopted():
                    self.meter.count(SESSIONS_ADOPTED)
                case InterpreterRestarted():
                    self.meter.count(INTERPRETER_RESTARTS)
                case SessionClosed():
                    self.meter.count(SESSIONS_CLOSED, event.reason)

    async def read(self, session_id: str) -> Sequence[SessionEvent]:
        return await self.log.read(session_id)

    async def all(self, since: int | None = None) -> SessionIndex:
        return await self.log.all(since)

    async def retire(self, session_id: str) -> None:
        await self.log.retire(session_id)
