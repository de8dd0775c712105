"""The keys in Consul below the prefix of the deployment, and the JSON documents that the event log stores there.

docs/consul.md documents them for other programs. A new version may add fields to a document, but never removes or
changes a field."""

import json
from collections.abc import Mapping
from typing import Any, Final, Self

from attrs import define, frozen

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
from pyexec.errors import Conflict
from pyexec.ports import IdempotencyKey

INFLIGHT: Final = "inflight/"
"""One `InflightEntry` for each open execution and each upload in progress."""
STATUS: Final = "status/"
"""One pending or completion entry for each execution that is not retired."""
WEBHOOKS: Final = "webhooks/"
"""The receiver of each outstanding webhook, by execution id."""
EXECUTIONS: Final = "executions/"
RETIRED: Final = "retired/"
SESSIONS: Final = "sessions/"
"""The events of interpreter sessions. The key that equals the prefix always exists."""
REPLICAS: Final = "replicas/"
LEADER: Final = "leader"
DEPLOYMENT: Final = "deployment"

STATUS_VERSION: Final = 1
UPLOADING: Final = "uploading"
"""The state of an execution whose archive is being stored. It has no event yet."""

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


def execution_prefix(execution_id: str) -> str:
    """Return the prefix of the events, the blobs and the bound idempotency key of an execution."""
    return f"{EXECUTIONS}{execution_id}/"


def events_prefix(execution_id: str) -> str:
    """Return the prefix of the event log of an execution."""
    return f"{EXECUTIONS}{execution_id}/events/"


def event_key(execution_id: str, seq: int) -> str:
    """Return the key of one event. Keys of events sort by event number."""
    return f"{EXECUTIONS}{execution_id}/events/{seq:06d}"


def bound_key(execution_id: str) -> str:
    """Return the key that names the idempotency key bound to an execution."""
    return f"{EXECUTIONS}{execution_id}/key"


def blob_prefix(execution_id: str, name: str) -> str:
    """Return the prefix of the manifest and the chunks of a blob."""
    return f"{EXECUTIONS}{execution_id}/blobs/{name}/"


def idempotency_key(key_hash: str) -> str:
    """Return the key that names the execution bound to an idempotency key."""
    return f"idempotency/{key_hash}"


def tombstone_key(execution_id: str) -> str:
    """Return the key that keeps a retired execution from being created again by a delayed first append."""
    return f"{RETIRED}{execution_id}"


def session_prefix(session_id: str) -> str:
    """Return the prefix of the event log of an interpreter session."""
    return f"{SESSIONS}{session_id}/"


def session_event_key(session_id: str, seq: int) -> str:
    """Return the key of one event of an interpreter session."""
    return f"{SESSIONS}{session_id}/{seq:06d}"


def replica_key(replica: str) -> str:
    """Return the key that a replica holds with its session while it is a member."""
    return f"{REPLICAS}{replica}"


def inbox_prefix(replica: str) -> str:
    """Return the prefix of a replica's inbox. The key that equals the prefix exists as long as the session."""
    return f"inbox/{replica}/"


@define
class InflightEntry:
    """The index entry of an open execution: the length of its log, its phase, and the replica that owns it."""

    length: int = 0
    state: str = Phase.QUEUED
    owner: str | None = None

    def apply(self, event: Event) -> None:
        """Update the entry with the next event. Raises `Conflict` if the execution has ended."""
        if self.state == Phase.ENDED:
            raise Conflict("the execution has ended; no event can follow")
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
        return _encode(length=self.length, state=self.state, owner=self.owner)

    @classmethod
    def decode(cls, value: bytes) -> Self:
        """Decode an entry. Raises `ValueError` for a document of another form."""
        match decode_json(value):
            case {"length": int(length), "state": str(state), "owner": str() | None as owner}:
                return cls(length, state, owner)
        raise ValueError("length, state or owner is missing")


@frozen
class Completion:
    """The final status of an execution and the time of its end, from its completion entry."""

    status: Status
    finished_at: str


def encode_pending(execution_id: str, submitted: Event) -> bytes:
    """Return `status/<id>` as the first transaction writes it."""
    return _encode(
        version=STATUS_VERSION,
        execution_id=execution_id,
        status=Status.PENDING,
        created_at=timestamp(submitted.at),
    )


def encode_completion(execution_id: str, length: int, terminal: Terminal) -> bytes:
    """Return `status/<id>` as the last transaction writes it; `length` is the number of events."""
    optional: dict[str, object] = {}
    if not isinstance(terminal, Killed):
        optional = {"exit_code": terminal.exit_code, "error_type": terminal.error_type}
    return _encode(
        version=STATUS_VERSION,
        execution_id=execution_id,
        status=status_after(terminal),
        events=length,
        finished_at=timestamp(terminal.at),
        **{name: value for name, value in optional.items() if value is not None},
    )


def decode_status(value: bytes) -> Completion | None:
    """Return the completion that `status/<id>` holds; None for a pending entry.

    Raises `ValueError` for a document of another form."""
    match decode_json(value):
        case {"version": 1, "status": Status.PENDING}:
            return None
        case {"version": 1, "status": str(status), "finished_at": str(finished_at)}:
            return Completion(Status(status), finished_at)
        case {"version": version} if version != STATUS_VERSION:
            raise ValueError(f"version is {version!r}; supported is {STATUS_VERSION}")
    raise ValueError("status is missing")


def encode_binding(execution_id: str, key: IdempotencyKey) -> bytes:
    """Return `idempotency/<hash>`."""
    return _encode(execution_id=execution_id, fingerprint=key.fingerprint)


def decode_binding(value: bytes) -> tuple[str, str]:
    """Return the execution and the fingerprint that `idempotency/<hash>` holds.

    Raises `ValueError` for a document of another form."""
    match decode_json(value):
        case {"execution_id": str(execution_id), "fingerprint": str(fingerprint)}:
            return execution_id, fingerprint
    raise ValueError("execution_id or fingerprint is missing")


def encode_bound_key(key: IdempotencyKey) -> bytes:
    """Return `executions/<id>/key`."""
    return _encode(key_hash=key.key_hash, fingerprint=key.fingerprint)


def decode_bound_key(value: bytes) -> IdempotencyKey:
    """Return the idempotency key that `executions/<id>/key` names.

    Raises `ValueError` for a document of another form."""
    match decode_json(value):
        case {"key_hash": str(key_hash), "fingerprint": str(fingerprint)}:
            return IdempotencyKey(key_hash=key_hash, fingerprint=fingerprint)
    raise ValueError("key_hash or fingerprint is missing")


def decode_json(value: bytes) -> Any:
    """Parse a stored document. Raises `ValueError` if it is not JSON."""
    try:
        return json.loads(value)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _encode(**fields: Any) -> bytes:
    return json.dumps(fields).encode()
