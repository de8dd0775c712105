"""Where everything lies in Consul, below the deployment's prefix."""

from typing import Final

INFLIGHT: Final = "inflight/"
STATUS: Final = "status/"
EXECUTIONS: Final = "executions/"
RETIRED: Final = "retired/"
REPLICAS: Final = "replicas/"
LEADER: Final = "leader"
DEPLOYMENT: Final = "deployment"


def execution_prefix(execution_id: str) -> str:
    """All that an execution has of its own: its events and blobs, and the idempotency key that is bound to it."""
    return f"{EXECUTIONS}{execution_id}/"


def events_prefix(execution_id: str) -> str:
    """The log."""
    return f"{EXECUTIONS}{execution_id}/events/"


def event_key(execution_id: str, seq: int) -> str:
    """One event, so that keys sort as numbers do."""
    return f"{EXECUTIONS}{execution_id}/events/{seq:06d}"


def bound_key(execution_id: str) -> str:
    """Which idempotency key is bound to the execution, and by what request."""
    return f"{EXECUTIONS}{execution_id}/key"


def blob_prefix(execution_id: str, name: str) -> str:
    """A blob's manifest and chunks."""
    return f"{EXECUTIONS}{execution_id}/blobs/{name}/"


def idempotency_key(key_hash: str) -> str:
    """Which execution a caller's key stands for."""
    return f"idempotency/{key_hash}"


def tombstone_key(execution_id: str) -> str:
    """There for a while after an execution was retired, against a first event that comes late."""
    return f"{RETIRED}{execution_id}"


def replica_key(replica: str) -> str:
    """There while a replica is alive."""
    return f"{REPLICAS}{replica}"


def inbox_prefix(replica: str) -> str:
    """The executions that a replica was told of; the folder's own key lives as long as the replica."""
    return f"inbox/{replica}/"
