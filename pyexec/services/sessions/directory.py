"""Read the sessions of the deployment from their logs."""

from collections.abc import Sequence

from attrs import frozen

from pyexec.domain.session import Session, fold_session
from pyexec.errors import CorruptLog, SessionEnded, UnknownSession
from pyexec.ports import Caller, SessionLog
from pyexec.services.event_log import CorruptLogReporter


@frozen
class SessionDirectory:
    """Reads sessions. Those whose log cannot be read are reported once, and do not exist for callers."""

    log: SessionLog
    corrupt_logs: CorruptLogReporter

    async def read(self, session_id: str, caller: Caller) -> Session:
        """Return a session. Raises `UnknownSession`, also for those of other tenants."""
        session = await self._fold(session_id)
        if session is None or not caller.may_access(session):
            raise UnknownSession(f"session {session_id} does not exist, or was deleted after its retention")
        return session

    async def all(self) -> Sequence[Session]:
        """Return all sessions, newest first, closed ones included."""
        ids = sorted((await self.log.all()).lengths, reverse=True)
        sessions = [await self._fold(session_id) for session_id in ids]
        return [session for session in sessions if session is not None]

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
