"""Read the sessions of the deployment from their logs."""

from collections.abc import Sequence

import anyio
from attrs import define, field

from pyexec.domain.session import Session, fold_session
from pyexec.errors import CorruptLog, SessionEnded, UnknownSession
from pyexec.ports import Caller, SessionLog
from pyexec.services.event_log import CorruptLogReporter


@define
class SessionDirectory:
    """Reads sessions. Those whose log cannot be read are reported once, and do not exist for callers."""

    log: SessionLog
    corrupt_logs: CorruptLogReporter
    _known: dict[str, tuple[int, Session]] = field(factory=dict, init=False)
    """The sessions of the last list, with the number of their events: only those that have more are read again."""

    async def version(self, known: int | None, seconds: float) -> int:
        """Return the version of the list of sessions. If it is `known`, wait for the next one, at most `seconds`."""
        if known is None:
            return (await self.log.all()).version
        with anyio.move_on_after(seconds):
            return (await self.log.all(known)).version
        return known

    async def read(self, session_id: str, caller: Caller) -> Session:
        """Return a session. Raises `UnknownSession`, also for those of other tenants."""
        session = await self._fold(session_id)
        if session is None or not caller.may_access(session):
            raise UnknownSession(f"session {session_id} does not exist, or was deleted after its retention")
        return session

    async def all(self) -> Sequence[Session]:
        """Return all sessions, newest first, closed ones included."""
        lengths = (await self.log.all()).lengths
        self._known = {name: known for name, known in self._known.items() if lengths.get(name) == known[0]}
        sessions: list[Session] = []
        for session_id in sorted(lengths, reverse=True):
            known = self._known.get(session_id)
            session = await self._fold(session_id) if known is None else known[1]
            if session is not None:
                self._known[session_id] = (session.seq, session)
                sessions.append(session)
        return sessions

    async def all_open(self) -> Sequence[Session]:
        """Return all open sessions, newest first."""
        return [session for session in await self.all() if session.is_open]

    async def _fold(self, session_id: str) -> Session | None:
        try:
            events = await self.log.read(session_id)
            return fold_session(session_id, events) if events else None
        except CorruptLog as error:
            self.corrupt_logs.report(session_id, error)
            return None


def require_open(session: Session) -> None:
    """Raise `SessionEnded` if the session is closed."""
    if not session.is_open:
        raise SessionEnded(f"session {session.id} is closed ({session.close_reason}); open a new one")
