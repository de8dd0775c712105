"""The event log: the only truth."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from attrs import frozen

from pyexec.domain.events import Event
from pyexec.domain.execution import Status
from pyexec.errors import CorruptLog


@frozen(kw_only=True)
class IdempotencyKey:
    """A caller's key, hashed, and the fingerprint of the request that it stands for."""

    key_hash: str
    fingerprint: str


@frozen(kw_only=True)
class OpenExecutions:
    """All executions that have not ended, each with the length of its log, at a version of the log's index.

    The version is new at every append."""

    version: int
    lengths: Mapping[str, int]


@frozen(kw_only=True)
class Inbox:
    """The executions that one replica was told of and has not settled, at a version of the inbox. Each comes with a
    number that is another one when it was told of it again."""

    version: int
    told: Mapping[str, int]


@frozen(kw_only=True)
class Page:
    """Ids, newest first, and the cursor of the next page; None after the last."""

    ids: Sequence[str]
    next_cursor: str | None


class EventLog(Protocol):
    """The only truth: for each execution a gapless, append-only sequence of events, counted from 1.

    Every method raises `Unavailable` when the store does not answer, `CorruptLog` for what it cannot read."""

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
        """Writes `events` as numbers `after + 1` and on, all or none, durably once this returns.

        `key`, allowed with `after` 0 only, is bound to the execution in the same step. `tell` puts the execution
        into that replica's inbox in the same step; `gone` names a replica that must not be a member in that
        step. Whether the events are a legal word is the caller's business. A cancelled append has happened
        wholly or not at all; so has one that raises `Unavailable`, and it may yet happen a little later.
        Raises `Conflict` when the log is not `after` events long, has ended, or is retired, or when `gone` is a
        member; `KeyTaken` when the key is bound; `ConsulSessionLost` when this replica is no member at present, and
        then nothing was written, nor will be; `TooLarge` when the store cannot take that much in one step."""

    async def read(self, execution_id: str, after: int = 0) -> Sequence[Event]:
        """The events from number `after + 1` on; empty when there are none."""

    async def wait(self, execution_id: str, after: int) -> None:
        """Returns once the log is longer than `after` events or is retired; at once if it is so already."""

    async def open_executions(self, since: int | None = None) -> OpenExecutions:
        """The executions that have not ended: now, or as soon as the index's version is not `since`."""

    async def inbox(self, replica: str, since: int | None = None) -> Inbox:
        """What a replica was told of: now, or as soon as the inbox's version is not `since`.

        It may return without news."""

    async def acknowledge(self, replica: str, execution_id: str, number: int) -> None:
        """Takes an execution out of a replica's inbox, unless it was told of it again since it got this number; fine
        when it is not there."""

    async def page(self, *, status: Status | None, limit: int, cursor: str | None) -> Page:
        """At most `limit` executions, newest first, from `cursor` on, of one status or of all.

        Raises `InvalidRequest` for a `cursor` that no page gave."""

    async def ended_before(self, moment: datetime, limit: int) -> Sequence[str]:
        """At most `limit` executions that ended before `moment`, oldest end first. One that came to be long after its
        id was made, or by a clock that is late, may be found some minutes later."""

    async def key_owner(self, key_hash: str) -> tuple[str, str] | None:
        """The execution that a key is bound to, and its fingerprint; None when the key is free."""

    async def retire(self, execution_id: str) -> None:
        """Removes an ended execution and its key; fine when it is gone already.

        A retired log never comes back. Raises `Conflict` when the execution has not ended."""

    async def rebuild_index(self) -> Mapping[str, CorruptLog]:
        """Makes everything but the events anew from the events, while the log is in use. What cannot be read keeps the
        index that it has, and is what this returns."""

    async def check(self) -> None:
        """Returns when the store answers."""
