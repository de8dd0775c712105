"""The state of a cluster, as the server returns it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from attrs import field, frozen

from .errors import reading


@frozen(kw_only=True)
class Capacity:
    """The total and the used amount of a resource."""

    total: int
    used: int

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Convert the JSON object of a response."""
        return cls(total=data["total"], used=data["used"])


@frozen(kw_only=True)
class PoolImage:
    """The number of idle and of starting sandboxes of an image."""

    image: str
    idle: int
    starting: int


@frozen(kw_only=True)
class SandboxReuse:
    """Count used sandboxes that were kept for another program (`served`) or removed (`discarded`) since the start."""

    served: int
    discarded: int


@frozen(kw_only=True)
class SessionCount:
    """The number of open sessions of a server."""

    open: int


@frozen(kw_only=True)
class Replica:
    """The state of a server. One that does not answer has only a part of the fields, and a warning.

    - `ready`: True if the server can accept work
    - `warnings`: sentences for the operator; without them, the tuple is empty
    - `draining`: True while the server shuts down
    - `address`: None for tenants that do not operate the servers
    """

    name: str
    version: str
    ready: bool
    leader: bool
    draining: bool
    slots: Capacity
    address: str | None = None
    warnings: tuple[str, ...] = ()
    memory_mb: Capacity | None = None
    pool: tuple[PoolImage, ...] = ()
    reuse: SandboxReuse | None = None
    sessions: SessionCount | None = None
    uptime_seconds: float | None = None

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Convert the JSON object of a response."""
        memory, reuse, sessions = data.get("memory_mb"), data.get("reuse"), data.get("sessions")
        return cls(
            name=data["name"],
            version=data["version"],
            ready=data["ready"],
            leader=data["leader"],
            draining=data["draining"],
            slots=Capacity.from_json(data["slots"]),
            address=data.get("address"),
            warnings=tuple(data.get("warnings") or ()),
            memory_mb=Capacity.from_json(memory) if memory else None,
            pool=tuple(
                PoolImage(image=each["image"], idle=each["idle"], starting=each["starting"])
                for each in data.get("pool") or ()
            ),
            reuse=SandboxReuse(served=reuse["served"], discarded=reuse["discarded"]) if reuse else None,
            sessions=SessionCount(open=sessions["open"]) if sessions else None,
            uptime_seconds=data.get("uptime_seconds"),
        )


@frozen(kw_only=True)
class TenantQueue:
    """The number of executions of a tenant that wait, and of those that hold a slot."""

    tenant: str
    waiting: int
    running: int


@frozen(kw_only=True)
class Cluster:
    """All servers by name, the queue by tenant, and the name of the leader if it is known.

    `raw` is the JSON object of the response, including fields that only newer servers send.
    """

    replicas: tuple[Replica, ...]
    queue: tuple[TenantQueue, ...]
    leader: str | None = None
    raw: Mapping[str, Any] = field(factory=dict, repr=False, eq=False)

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Convert the JSON object of a response. Raise InvalidAnswer if it is not the state of a cluster."""
        with reading("the state of a cluster", data):
            return cls(
                replicas=tuple(Replica.from_json(each) for each in data["replicas"]),
                queue=tuple(
                    TenantQueue(tenant=each["tenant"], waiting=each["waiting"], running=each["running"])
                    for each in data["queue"]
                ),
                leader=data.get("leader"),
                raw=data,
            )
