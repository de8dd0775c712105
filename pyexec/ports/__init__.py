"""What the services need from the world outside, as interfaces. Adapters implement them."""

from pyexec.ports.blobs import BlobStore
from pyexec.ports.engine import (
    Container,
    ContainerSpec,
    Engine,
    EngineIdentity,
    Image,
    Images,
    SetupContainer,
    SetupSpec,
)
from pyexec.ports.log import EventLog, IdempotencyKey, Inbox, OpenExecutions, Page
from pyexec.ports.membership import Member, Members, Membership
from pyexec.ports.peers import REPLICA_HEADER, Caller, Peers

__all__ = [
    "REPLICA_HEADER",
    "BlobStore",
    "Caller",
    "Container",
    "ContainerSpec",
    "Engine",
    "EngineIdentity",
    "EventLog",
    "IdempotencyKey",
    "Image",
    "Images",
    "Inbox",
    "Member",
    "Members",
    "Membership",
    "OpenExecutions",
    "Page",
    "Peers",
    "SetupContainer",
    "SetupSpec",
]
