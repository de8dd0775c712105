"""Readers of the index in Consul: which executions are open, and how the others ended."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice

from attrs import define, field

from pyexec.adapters.consul.kv import OPERATIONS_MAX, ConsulKV, Entry, Listing, Operation
from pyexec.adapters.consul.schema import (
    INFLIGHT,
    STATUS,
    UPLOADING,
    WEBHOOKS,
    Completion,
    InflightEntry,
    decode_status,
)
from pyexec.aio import Broadcast, FailureLog, registered, retry
from pyexec.domain.execution import Phase
from pyexec.domain.ids import is_execution_id
from pyexec.errors import Unavailable
from pyexec.ports import OpenExecutions

logger = logging.getLogger(__name__)


@define
class InvalidKeyReporter:
    """Logs each key that holds no valid entry once, and again only if the key changes."""

    _reported: set[tuple[str, int]] = field(factory=set)

    def report(self, entry: Entry, reason: object) -> None:
        """Log that an entry is ignored, unless that has been logged."""
        if (entry.key, entry.index) not in self._reported:
            self._reported.add((entry.key, entry.index))
            logger.error("ignoring unrecognized key %s: %s", entry.key, reason)


def read_inflight(entries: Sequence[Entry], invalid: InvalidKeyReporter) -> Mapping[str, InflightEntry]:
    """Decode entries under `inflight/`, uploads included, and return them by execution id."""
    found = {}
    for entry in entries:
        execution_id = entry.key.removeprefix(INFLIGHT)
        if not execution_id:
            continue  # the key of the folder itself; see InflightWatch
        if not is_execution_id(execution_id):
            invalid.report(entry, "the name is not an execution id")
            continue
        try:
            found[execution_id] = InflightEntry.decode(entry.value)
        except ValueError as error:
            invalid.report(entry, error)
    return found


def open_executions(listing: Listing, invalid: InvalidKeyReporter) -> OpenExecutions:
    """Return the open executions in a listing of `inflight/`, without uploads."""
    inflight = read_inflight(listing.entries, invalid)
    return OpenExecutions(
        version=listing.index,
        lengths={execution_id: i.length for execution_id, i in inflight.items() if i.state != UPLOADING},
        queued={execution_id for execution_id, i in inflight.items() if i.state == Phase.QUEUED},
    )


def read_webhooks(entries: Sequence[Entry]) -> Mapping[str, str]:
    """Return the receivers of the outstanding webhooks, by execution id. Other keys are ignored."""
    named = ((entry.key.removeprefix(WEBHOOKS), entry.value) for entry in entries)
    return {name: value.decode("utf-8", "replace") for name, value in named if is_execution_id(name)}


async def read_completions(
    kv: ConsulKV, invalid: InvalidKeyReporter, ids: Iterable[str]
) -> Mapping[str, Completion | None]:
    """Read `status/` of these executions: None for a pending or unreadable entry. Retired ones are left out."""
    found: dict[str, Completion | None] = {}
    remaining = iter(ids)
    while batch := list(islice(remaining, OPERATIONS_MAX)):
        # `get` fails the transaction for a key that does not exist; `get-tree` returns nothing for it.
        reads = [Operation(verb="get-tree", key=f"{STATUS}{execution_id}") for execution_id in batch]
        for entry in await kv.transaction(reads):
            execution_id = entry.key.removeprefix(STATUS)
            try:
                found[execution_id] = decode_status(entry.value)
            except ValueError as error:
                invalid.report(entry, error)
                found[execution_id] = None
    return found


class StatusIndex:
    """The entries under `status/`. Completions never change, so each is read once."""

    def __init__(self, kv: ConsulKV, invalid: InvalidKeyReporter) -> None:
        self._kv = kv
        self._invalid = invalid
        self._completed: dict[str, Completion] = {}

    async def ids(self) -> Sequence[str]:
        """Return all executions that are not retired, oldest first."""
        ids = [key.removeprefix(STATUS) for key in await self._kv.keys(STATUS)]
        return [execution_id for execution_id in ids if is_execution_id(execution_id)]

    async def completed(self) -> Mapping[str, Completion]:
        """Return the completions of all ended executions that are not retired, oldest first."""
        ids = await self.ids()
        unknown = [execution_id for execution_id in ids if execution_id not in self._completed]
        found = await read_completions(self._kv, self._invalid, unknown)
        known = self._completed | {i: completion for i, completion in found.items() if completion is not None}
        self._completed = {execution_id: known[execution_id] for execution_id in ids if execution_id in known}
        return self._completed


class InflightWatch:
    """The open executions, kept up to date by one blocking query that all waiters of this process share.

    It needs `run` as a task. `failure` is set while Consul cannot be watched."""

    def __init__(self, kv: ConsulKV, invalid: InvalidKeyReporter) -> None:
        self.index = 0
        self.open = OpenExecutions(version=0, lengths={}, queued=frozenset())
        self.failure: Unavailable | None = None
        self._kv = kv
        self._invalid = invalid
        self._since: int | None = None
        self._changed = Broadcast()
        self._waiters: dict[str, set[Broadcast]] = {}

    async def run(self) -> None:
        """Watch `inflight/` until cancelled."""
        failures = FailureLog(logger, "watching open executions in Consul")
        while True:
            listing = await retry(self._query, failures)
            # A lower index means that the store was restored from a backup.
            went_back = self._since is not None and listing.index < self._since
            self.update(listing, force=went_back or self.failure is not None)
            self._since = None if went_back else listing.index

    async def _query(self) -> Listing:
        try:
            if self._since is None:
                # Every write to Consul ends a blocking query on an empty folder; so the folder gets a key.
                await self._kv.put(INFLIGHT, b"", index=0)
            return await self._kv.recurse(INFLIGHT, self._since)
        except Unavailable as error:
            self._since = None
            self._fail(error)
            raise

    def update(self, listing: Listing, *, force: bool = False) -> None:
        """Replace the state by a listing of `inflight/`. Without `force`, ignore a listing that is not newer."""
        self.failure = None
        if listing.index <= self.index and not force:
            return
        before, self.index = self.open.lengths, listing.index
        self.open = open_executions(listing, self._invalid)
        self._changed.notify_all()
        for execution_id, waiters in self._waiters.items():
            length = self.open.lengths.get(execution_id)
            if length is None or length != before.get(execution_id):
                for waiter in waiters:
                    waiter.notify_all()

    async def wait_for_change(self, index: int) -> None:
        """Wait until `self.index` is not `index`. Raises `Unavailable` while Consul cannot be watched."""
        while self.index == index:
            self.check()
            await self._changed.wait()

    def check(self) -> None:
        """Raise `Unavailable` while Consul cannot be watched."""
        if self.failure is not None:
            raise Unavailable(str(self.failure)) from self.failure

    @contextmanager
    def subscribe(self, execution_id: str) -> Iterator[Broadcast]:
        """Yield a broadcast for changes of this execution; while it is not open, for every change."""
        with registered(self._waiters, execution_id, Broadcast()) as waiter:
            yield waiter

    def _fail(self, error: Unavailable) -> None:
        self.failure = error
        self._changed.notify_all()
        for waiters in self._waiters.values():
            for waiter in waiters:
                waiter.notify_all()
