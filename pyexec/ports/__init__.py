"""The interfaces to the outside world, as the services need them. Adapters implement them."""

from pyexec.ports.cluster import (
    REPLICA_HEADER,
    Caller,
    Liveness,
    Member,
    Members,
    Membership,
    PeerRequest,
    PeerResponse,
    Peers,
)
from pyexec.ports.engine import (
    Container,
    ContainerSpec,
    ContainerUsage,
    Engine,
    EngineIdentity,
    Image,
    Images,
    SetupContainer,
    SetupSpec,
)
from pyexec.ports.sessions import SessionIndex, SessionLog
from pyexec.ports.storage import (
    BlobStore,
    EventLog,
    ExecutionPage,
    IdempotencyKey,
    Inbox,
    OpenExecutions,
    OutstandingWebhooks,
    check_append,
    check_cursor,
    receiver_in,
)
from pyexec.ports.tracing import Tracer
from pyexec.ports.webhooks import WebhookSender

__all__ = [
    "REPLICA_HEADER",
    "BlobStore",
    "Caller",
    "Container",
    "ContainerSpec",
    "ContainerUsage",
    "Engine",
    "EngineIdentity",
    "EventLog",
    "ExecutionPage",
    "IdempotencyKey",
    "Image",
    "Images",
    "Inbox",
    "Liveness",
    "Member",
    "Members",
    "Membership",
    "OpenExecutions",
    "OutstandingWebhooks",
    "PeerRequest",
    "PeerResponse",
    "Peers",
    "SessionIndex",
    "SessionLog",
    "SetupContainer",
    "SetupSpec",
    "Tracer",
    "WebhookSender",
    "check_append",
    "check_cursor",
    "receiver_in",
]
