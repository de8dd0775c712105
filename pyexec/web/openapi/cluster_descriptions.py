"""Descriptions of the types of the cluster's state."""

from pyexec.domain.cluster import (
    Capacity,
    ClusterView,
    PoolImage,
    ReplicaState,
    SandboxReuse,
    SessionCount,
    TenantQueue,
)
from pyexec.web.openapi.field_docs import FieldDoc, TypeDoc, type_doc

CLUSTER_TYPES: dict[type, TypeDoc] = {
    Capacity: type_doc(
        "How much there is, and how much is in use.", total=FieldDoc("All.", 4), used=FieldDoc("In use.", 1)
    ),
    PoolImage: type_doc(
        "Sandboxes of one image.",
        image=FieldDoc("Name of the image.", "python:3.12-slim"),
        idle=FieldDoc("Idle sandboxes.", 2),
        starting=FieldDoc("Sandboxes that are starting.", 0),
    ),
    SandboxReuse: type_doc(
        "Used sandboxes since the start of the replica.",
        served=FieldDoc("Kept for another program.", 10),
        discarded=FieldDoc("Removed after a program.", 1),
    ),
    SessionCount: type_doc("Interpreter sessions.", open=FieldDoc("Open ones.", 2)),
    ReplicaState: type_doc(
        "A replica. If it does not answer, `ready` is false, and fields that only it knows are left out.",
        name=FieldDoc("Id of the replica.", "rep_1920b2262cee7f0d"),
        address=FieldDoc("Address of its API; only for operators.", "http://10.0.0.1:8080"),
        version=FieldDoc("Version of the server.", "0.1.0"),
        ready=FieldDoc("True if it accepts work.", True),
        warnings=FieldDoc("Why it is not ready, and warnings for the operator."),
        leader=FieldDoc("True if it is the leader.", True),
        draining=FieldDoc("True during its shutdown.", False),
        slots=FieldDoc("Slots for programs."),
        memory_mb=FieldDoc("Memory for sandboxes and how much of it is reserved, in MiB."),
        pool=FieldDoc(
            "Sandboxes that wait for programs. Only operators see images besides the default image."
        ),
        reuse=FieldDoc("Reuse of sandboxes."),
        sessions=FieldDoc("Interpreter sessions that it owns."),
        uptime_seconds=FieldDoc("Time since its start.", 3600.5),
    ),
    TenantQueue: type_doc(
        "Executions of a tenant, on all replicas.",
        tenant=FieldDoc("Name of the tenant.", "default"),
        waiting=FieldDoc("Executions that wait for a slot or for a place in the setup lane.", 0),
        running=FieldDoc("Slots in use.", 1),
    ),
    ClusterView: type_doc(
        "The state of a deployment.",
        replicas=FieldDoc("All replicas, by name."),
        queue=FieldDoc("The queue of each tenant that the caller may see."),
        leader=FieldDoc("Name of the leader; null if it is not known."),
    ),
}
