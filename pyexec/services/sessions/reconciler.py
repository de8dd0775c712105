"""Follow all interpreter sessions on the leader: close lost ones, and delete closed ones after their retention."""

import logging
from collections.abc import Mapping, Set
from datetime import timedelta

import anyio

from pyexec.aio import FailureLog
from pyexec.domain.session import Session, SessionsState, fold_session, next_session_deadline, plan_sessions
from pyexec.domain.session_events import CloseReason, SessionClosed
from pyexec.errors import Conflict, CorruptLog, Unavailable
from pyexec.ports import SessionLog
from pyexec.services.clock import nonce, now
from pyexec.services.event_log import CorruptLogReporter

logger = logging.getLogger(__name__)


class SessionReconciler:
    """The part of the `Reconciler` for sessions. `reset` it when the replica becomes the leader."""

    def __init__(
        self,
        log: SessionLog,
        *,
        adoption_seconds: float,
        ttl_seconds: float,
        corrupt_logs: CorruptLogReporter,
    ) -> None:
        self._log = log
        self._adoption_seconds = adoption_seconds
        self._ttl_seconds = ttl_seconds
        self._corrupt_logs = corrupt_logs
        self.reset()

    def reset(self) -> None:
        """Forget all sessions."""
        self._lengths: dict[str, int] = {}
        self._sessions: dict[str, Session] = {}
        self._corrupt: set[str] = set()
        self._is_known = False

    @property
    def open_ids(self) -> Set[str] | None:
        """The sessions that are open or cannot be read; None before the first `update`."""
        if not self._is_known:
            return None
        return {session.id for session in self._sessions.values() if session.is_open} | self._corrupt

    @property
    def owners(self) -> Set[str]:
        """The owners of the open sessions."""
        return {each.owner for each in self._sessions.values() if each.is_open and each.owner is not None}

    async def update(self, version: int | None) -> int:
        """Read the sessions that have changed since `version`, after waiting for a change. Return the new version.

        If a read fails, the next call starts from the old version and repeats it."""
        index = await self._log.all(version)
        for retired in self._lengths.keys() - index.lengths.keys():
            self._sessions.pop(retired, None)
            self._corrupt.discard(retired)
        for session_id, length in index.lengths.items():
            if self._lengths.get(session_id) != length:
                await self._read(session_id)
        self._lengths, self._is_known = dict(index.lengths), True
        return index.version

    async def close_lost(self, live: Set[str], gone_since: Mapping[str, float]) -> float | None:
        """Close the sessions that no replica has adopted in time. Return the time of the next deadline."""
        for session in plan_sessions(self._state(live, gone_since)):
            event = SessionClosed(at=now(), nonce=nonce(), reason=CloseReason.LOST)
            try:
                await self._log.append(session.id, session.seq, [event], fence=session.owner)
                logger.warning("session %s is lost: its replica %s is gone", session.id, session.owner)
            except Conflict as error:
                logger.info("%s: append conflict; planning again: %s", session.id, error)
            await self._read(session.id)
        return next_session_deadline(self._state(live, gone_since))

    async def retire_closed(self) -> None:
        """Delete sessions that were closed more than `ttl_seconds` ago, until cancelled."""
        failures = FailureLog(logger, "deleting old sessions")
        while True:
            before = now() - timedelta(seconds=self._ttl_seconds)
            try:
                for session in list(self._sessions.values()):
                    if session.closed_at is not None and session.closed_at < before:
                        await self._log.retire(session.id)
                failures.recovered()
            except (Unavailable, CorruptLog, Conflict) as error:
                failures.failed(error)
            await anyio.sleep(max(1.0, min(30.0, self._ttl_seconds / 10)))

    def _state(self, live: Set[str], gone_since: Mapping[str, float]) -> SessionsState:
        return SessionsState(
            now=anyio.current_time(),
            open=[session for session in self._sessions.values() if session.is_open],
            live=live,
            gone_since=gone_since,
            adoption_seconds=self._adoption_seconds,
        )

    async def _read(self, session_id: str) -> None:
        try:
            events = await self._log.read(session_id)
            session = fold_session(session_id, events) if events else None
        except CorruptLog as error:
            self._corrupt_logs.report(session_id, error)
            self._corrupt.add(session_id)
            session = None
        else:
            self._corrupt.discard(session_id)
        if session is None:
            self._sessions.pop(session_id, None)
        else:
            self._sessions[session_id] = session
