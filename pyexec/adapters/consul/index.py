"""What the log keeps beside its events in Consul, so that nobody has to read all of them. It can be rebuilt.

`inflight/<id>` is there while an execution is open or its payload is uploaded; `status/<id>` from its first event
to its retirement. Both are JSON; the latter is for watchers outside, too, and only ever gets new fields."""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Final, Self

from attrs import define, field, frozen

from pyexec.adapters.consul.keys import INFLIGHT, STATUS
from pyexec.adapters.consul.kv import OPERATIONS_MAX, ConsulKV, Entry, Operation
from pyexec.codec import timestamp
from pyexec.domain.events import (
    Adopted,
    Claimed,
    Event,
    Failed,
    Finished,
    Killed,
    Preparing,
    Released,
    Running,
    Submitted,
    Terminal,
)
from pyexec.domain.execution import Phase, Status, status_after
from pyexec.domain.ids import is_execution_id
from pyexec.errors import Conflict

logger = logging.getLogger(__name__)

STATUS_VERSION: Final = 1
UPLOADING: Final = "uploading"
"""The state of an execution whose payload is being stored: it has no event yet."""

_PHASE_AFTER: Final[Mapping[type[Event], Phase]] = {
    Submitted: Phase.QUEUED,
    Claimed: Phase.CLAIMED,
    Released: Phase.QUEUED,
    Preparing: Phase.PREPARING,
    Running: Phase.RUNNING,
    Adopted: Phase.RUNNING,
    Finished: Phase.ENDED,
    Failed: Phase.ENDED,
    Killed: Phase.ENDED,
}


@define
class Inflight:
    """An open execution: how long its log is, its phase, and the replica that answers for it."""

    length: int = 0
    state: str = Phase.QUEUED
    owner: str | None = None

    def note(self, event: Event) -> None:
        """Counts one more event; raises `Conflict` when the execution has ended."""
        if self.state == Phase.ENDED:
            raise Conflict("the execution has ended, so nothing can follow")
        self.length += 1
        self.state = _PHASE_AFTER.get(type(event), self.state)
        match event:
            case Claimed() | Adopted():
                self.owner = event.replica
            case Submitted() | Released():
                self.owner = None

    @property
    def status(self) -> Status:
        return Status.RUNNING if self.state == Phase.RUNNING else Status.PENDING

    def encode(self) -> bytes:
        return json.dumps({"length": self.length, "state": self.state, "owner": self.owner}).encode()

    @classmethod
    def decode(cls, value: bytes) -> Self:
        """Raises `ValueError` for anything else."""
        document = json.loads(value)
        match document:
            case {"length": int(length), "state": str(state), "owner": str() | None as owner}:
                return cls(length, state, owner)
        raise ValueError("it has no length, state and owner")


@frozen
class Ended:
    """What the completion entry says: how an execution ended, and when, as it is written."""

    status: Status
    finished_at: str


def pending_entry(execution_id: str, submitted: Event) -> bytes:
    """`status/<id>` as the first transaction writes it."""
    return _status_entry(execution_id=execution_id, status=Status.PENDING, created_at=timestamp(submitted.at))


def completion_entry(execution_id: str, length: int, end: Terminal) -> bytes:
    """`status/<id>` as the last transaction writes it; `events` is the length of the log."""
    entry: dict[str, object] = {
        "execution_id": execution_id,
        "status": status_after(end),
        "events": length,
        "finished_at": timestamp(end.at),
    }
    if not isinstance(end, Killed):
        extra = {"exit_code": end.exit_code, "error_type": end.error_type}
        entry |= {name: value for name, value in extra.items() if value is not None}
    return _status_entry(**entry)


def _status_entry(**fields: object) -> bytes:
    return json.dumps({"version": STATUS_VERSION, **fields}).encode()


def decode_status(value: bytes) -> Ended | None:
    """The end that an entry tells; None for one that is pending. Raises `ValueError` for anything else."""
    match json.loads(value):
        case {"version": 1, "status": Status.PENDING}:
            return None
        case {"version": 1, "status": str(status), "finished_at": str(finished_at)}:
            return Ended(Status(status), finished_at)
        case {"version": version} if version != STATUS_VERSION:
            raise ValueError(f"it is of version {version!r}; known is {STATUS_VERSION}")
    raise ValueError("it has no status")


@define
class Complaints:
    """Says once, and not at every look, that a key holds something that is not ours."""

    _known: set[tuple[str, int]] = field(factory=set)

    def about(self, entry: Entry, why: object) -> None:
        if (entry.key, entry.index) not in self._known:
            self._known.add((entry.key, entry.index))
            logger.error("the key %s is left alone, for it is not one of ours: %s", entry.key, why)


def read_inflight(entries: Sequence[Entry], complaints: Complaints) -> Mapping[str, Inflight]:
    """The executions that the entries under `inflight/` tell of, uploads included."""
    found = {}
    for entry in entries:
        execution_id = entry.key.removeprefix(INFLIGHT)
        if not execution_id:
            continue  # the folder, which makes blocking queries on it cheap
        if not is_execution_id(execution_id):
            complaints.about(entry, "it names no execution")
            continue
        try:
            found[execution_id] = Inflight.decode(entry.value)
        except ValueError as error:
            complaints.about(entry, error)
    return found


class StatusIndex:
    """The entries under `status/`. An end never changes, so each is read only once."""

    def __init__(self, kv: ConsulKV, complaints: Complaints) -> None:
        self._kv = kv
        self._complaints = complaints
        self._ended: dict[str, Ended] = {}

    async def ids(self) -> Sequence[str]:
        """Every execution that is not retired, oldest first."""
        ids = [key.removeprefix(STATUS) for key in await self._kv.keys(STATUS)]
        return [execution_id for execution_id in ids if is_execution_id(execution_id)]

    async def ended(self) -> Mapping[str, Ended]:
        """Every execution that has ended and is not retired, oldest first."""
        ids = await self.ids()
        fresh = [execution_id for execution_id in ids if execution_id not in self._ended]
        found = await read_ends(self._kv, self._complaints, fresh)
        known = self._ended | {execution_id: end for execution_id, end in found.items() if end is not None}
        self._ended = {execution_id: known[execution_id] for execution_id in ids if execution_id in known}
        return self._ended


async def read_ends(kv: ConsulKV, complaints: Complaints, ids: Iterable[str]) -> Mapping[str, Ended | None]:
    """The ends of those executions, None for those that are open, or not to be told; without those that are gone."""
    found: dict[str, Ended | None] = {}
    left = iter(ids)
    while batch := list(islice(left, OPERATIONS_MAX)):
        # As a tree, one that is retired meanwhile is not there, and no error.
        reads = [Operation(verb="get-tree", key=f"{STATUS}{execution_id}") for execution_id in batch]
        for entry in await kv.transaction(reads):
            execution_id = entry.key.removeprefix(STATUS)
            try:
                found[execution_id] = decode_status(entry.value)
            except ValueError as error:
                complaints.about(entry, error)
                found[execution_id] = None
    return found
