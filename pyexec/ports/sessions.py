"""Durable storage of interpreter sessions: an event log for each session."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from attrs import frozen

from pyexec.domain.session_events import SessionEvent


@frozen(kw_only=True)
class SessionIndex:
    """All stored sessions, closed ones included, with the lengths of their logs. Each append changes `version`."""

    version: int
    lengths: Mapping[str, int]


class SessionLog(Protocol):
    """For each interpreter session a gapless, append-only sequence of events, numbered from 1.

    There are hundreds of sessions, not millions, so there is no separate index. Every method raises `Unavailable` if
    the store does not answer, and `CorruptLog` for data that it cannot read."""

    async def append(
        self, session_id: str, after: int, events: Sequence[SessionEvent], *, fence: str | None = None
    ) -> None:
        """Append `events` as numbers `after + 1` and up: all or none, and durable on return.

        `fence` names a replica that must not be a member. The log does not check that the events are legal: the caller
        does. If the append is cancelled or raises `Unavailable`, the same holds as for `EventLog.append`.

        Raises `Conflict` if the log does not have `after` events or is retired, or if `fence` is a member; `TooLarge`
        if the store cannot write that much in one step; `ConsulSessionLost` if this replica is not a member, in which
        case nothing is written, now or later."""

    async def read(self, session_id: str) -> Sequence[SessionEvent]:
        """Return the events of a session; an empty sequence if it does not exist."""

    async def all(self, since: int | None = None) -> SessionIndex:
        """Return all stored sessions. If `since` is the current version, wait for the next one.

        The wait may end without a change."""

    async def retire(self, session_id: str) -> None:
        """Delete a closed session, if it exists. A retired log cannot be recreated.

        Raises `Conflict` if the session is open."""
