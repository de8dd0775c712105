"""A kind of sandbox, its image and its container."""

from datetime import UTC, datetime

from pyexec.ports import ContainerSpec, Image
from pyexec.sandbox.pool.kind_queue import SandboxKind

FIRST = datetime(2026, 1, 1, tzinfo=UTC)


def kind_of(memory_mb: int) -> SandboxKind:
    return SandboxKind(image="i", memory_mb=memory_mb, disk_mb=1, cpu_shares=2, cpus=None, network=False)


def spec_of(kind: SandboxKind) -> ContainerSpec:
    return ContainerSpec(
        image=kind.image, command=(), labels={"memory": str(kind.memory_mb)}, memory_bytes=0, disk_bytes=0,
        shm_bytes=0, pids_max=0, cpu_shares=0, cpus=None, log_bytes=0, network=None,
    )  # fmt: skip


async def image_of(name: str) -> Image:
    return Image(
        id=name,
        digest=name,
        names=(),
        size_bytes=0,
        architecture="",
        created_at=FIRST,
        used_at=FIRST,
    )
