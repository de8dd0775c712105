"""Durable storage: the event log, and the blob store for data that is too large for the log."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence, Set
from datetime import datetime
from typing import Protocol

from attrs import frozen

from pyexec.domain.events import Event, StoredEvent, Submitted
from pyexec.domain.execution import Status
from pyexec.domain.ids import is_execution_id
from pyexec.domain.session_events import SessionEvent
from pyexec.domain.webhook_schedule import receiver_name
from pyexec.errors import CorruptLog, InvalidRequest


@frozen(kw_only=True)
class IdempotencyKey:
    """The hash of a caller's idempotency key, and the fingerprint of the request that came with it."""

    key_hash: str
    fingerprint: str


@frozen(kw_only=True)
class OpenExecutions:
    """The executions that have not ended, with the lengths of their logs. Each append changes `version`.

    `queued` are those that no replica has claimed."""

    version: int
    lengths: Mapping[str, int]
    queued: Set[str]


@frozen(kw_only=True)
class Inbox:
    """The executions that a replica was notified of and has not acknowledged, each with the revision of its entry.

    A further notification about an execution changes the revision of its entry."""

    version: int
    entries: Mapping[str, int]


@frozen(kw_only=True)
class OutstandingWebhooks:
    """The executions whose webhook has not been delivered, whether they have ended or not, with their receivers."""

    version: int
    receivers: Mapping[str, str]


@frozen(kw_only=True)
class ExecutionPage:
    """One page of execution ids, newest first. `next_cursor` is None on the last page."""

    ids: Sequence[str]
    next_cursor: str | None


def receiver_in(after: int, events: Sequence[Event]) -> str | None:
    """Return the receiver of the webhook that an append requests, if it is the first one and requests a webhook."""
    first = events[0]
    if after != 0 or not isinstance(first, Submitted) or first.spec.webhook_url is None:
        return None
    return receiver_name(first.spec.webhook_url, first.spec.tenant)


def check_append(after: int, events: Sequence[StoredEvent], key: IdempotencyKey | None) -> None:
    """Raise `ValueError` for arguments that no implementation of `EventLog.append` takes."""
    if not events:
        raise ValueError("an append needs events")
    if key is not None and after != 0:
        raise ValueError("an idempotency key can only be bound with the first event")


def check_cursor(cursor: str | None) -> None:
    """Raise `InvalidRequest` if a caller's cursor cannot come from an earlier page."""
    if cursor is not None and not is_execution_id(cursor):
        raise InvalidRequest("cursor must be the next_cursor of an earlier answer", field="cursor")


class EventLog(Protocol):
    """The source of truth: for each execution a gapless, append-only sequence of events, numbered from 1.

    Every method raises `Unavailable` if the store does not answer, and `CorruptLog` for data that it cannot read."""

    async def append(
        self,
        execution_id: str,
        after: int,
        events: Sequence[Event],
        *,
        key: IdempotencyKey | None = None,
        notify: str | None = None,
        fence: str | None = None,
    ) -> None:
        """Append `events` as numbers `after + 1` and up: all or none, and durable on return.

        Three more things can happen in the same step. `key`, allowed only if `after` is 0, is bound to the
        execution. `notify` names a replica that gets the execution into its inbox. `fence` names a replica that
        must not be a member. The log does not check that the events are legal: the caller does. If the first event
        requests a webhook, the webhook is outstanding from then on.

        If the append is cancelled, all events were written or none. If it raises `Unavailable`, all or none were
        written, or all may be written a few seconds later.

        Raises `Conflict` if the log does not have `after` events, has ended or is retired, or if `fence` is a
        member; `KeyTaken` if the key is bound already; `TooLarge` if the store cannot write that much in one
        step; `ConsulSessionLost` if this replica is not a member, in which case nothing is written, now or later."""

    async def read(self, execution_id: str, after: int = 0) -> Sequence[Event]:
        """Return the events from number `after + 1` on; an empty sequence if there are none."""

    async def wait(self, execution_id: str, after: int) -> None:
        """Wait until the log has more than `after` events or is retired."""

    async def open_executions(self, since: int | None = None) -> OpenExecutions:
        """Return the executions that have not ended. If `since` is the current version, wait for the next one.

        With `since`, the answer comes from memory: the store gets no request."""

    async def inbox(self, replica: str, since: int | None = None) -> Inbox:
        """Return the inbox of a replica. If `since` is the current version, wait for the next one.

        The wait may end without a change."""

    async def acknowledge(self, replica: str, execution_id: str, revision: int) -> None:
        """Remove an execution from an inbox, if its entry is there and still has this revision."""

    async def list_executions(
        self, *, status: Status | None, limit: int, cursor: str | None
    ) -> ExecutionPage:
        """Return at most `limit` executions, newest first, starting at `cursor`; with `status`, only those.

        Raises `InvalidRequest` if `cursor` did not come from an earlier page."""

    async def list_ended(
        self, before: datetime, limit: int, *, undelivered_before: datetime | None = None
    ) -> Sequence[str]:
        """Return at most `limit` executions that ended before `before`, the earliest end first. Those whose webhook is
        outstanding must have ended before `undelivered_before`, if it is given.

        An execution may be found some minutes late if its first event was written long after its id was created,
        or if its id comes from a slow clock."""

    async def find_by_key(self, key_hash: str) -> tuple[str, str] | None:
        """Return the execution that an idempotency key is bound to, and its fingerprint; None if there is none."""

    async def retire(self, execution_id: str) -> None:
        """Delete an ended execution, its idempotency key and its outstanding webhook, if they exist. A retired log
        cannot be recreated.

        Raises `Conflict` if the execution has not ended."""

    async def erase_retired(self) -> None:
        """Erase retired logs from the files of the store, as far as the store can do it."""

    async def webhooks(self, since: int | None = None) -> OutstandingWebhooks:
        """Return the outstanding webhooks. If `since` is the current version, wait for the next one.

        The wait may end without a change."""

    async def remove_webhook(self, execution_id: str) -> None:
        """Record that the webhook of an execution is no longer outstanding."""

    async def rebuild_index(self) -> Mapping[str, CorruptLog]:
        """Rebuild everything that is derived from the events, while the log is in use.

        Return the executions that cannot be read; their index entries stay as they are."""

    async def check(self) -> None:
        """Return if the store answers."""


class BlobStore(Protocol):
    """Stores bytes under names of the form `<execution id>/<name>`. Any other name raises `ValueError`."""

    @property
    def bytes_max(self) -> int | None:
        """The size limit of one blob; None if there is no limit."""

    async def put(self, name: str, chunks: AsyncIterator[bytes]) -> None:
        """Store all `chunks` as one blob: completely or not at all, and durable on return.

        Raises `TooLarge` if the blob exceeds the size limit of the store."""

    def read(self, name: str) -> AsyncIterator[bytes]:
        """Yield the bytes of a blob in order. Raises `Unavailable` if it does not exist."""

    async def delete(self, name: str) -> None:
        """Delete a blob, if it exists."""

    async def sweep(self, alive: Set[str], exists: Callable[[str], Awaitable[bool]]) -> None:
        """Delete orphaned blobs: those of executions for whose id `exists` returns False.

        Uploads in progress must be kept. So a blob is deleted only if the replica that stored it is not in `alive`. A
        store that does not record the replica deletes only blobs that are older than a day."""


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
