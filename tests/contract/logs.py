"""The event logs and blob stores that the contract tests run against, by name.

A location is a path that no other test uses. Some adapters use it as a directory, others derive a prefix from it."""

import asyncio
import hashlib
import os
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TypeVar

from pyexec.adapters.blobs.file_store import FileBlobs
from pyexec.adapters.blobs.object_store import ObjectBlobs
from pyexec.adapters.consul.blobs import ConsulBlobs
from pyexec.adapters.consul.config import ConsulConfig
from pyexec.adapters.consul.kv import ConsulKV
from pyexec.adapters.consul.log import ConsulLog
from pyexec.adapters.consul.membership import ConsulMembership
from pyexec.adapters.sqlite.log import EmbeddedLog
from pyexec.ports import BlobStore, EventLog, Member
from tests.support.s3 import BUCKET

T = TypeVar("T")
OpenLog = Callable[[Path], AbstractAsyncContextManager[EventLog]]
OpenBlobs = Callable[[Path], AbstractAsyncContextManager[BlobStore]]

CONSUL = "CONTRACT_TEST_CONSUL"
"""The environment variable with the address of the Consul agent, also for processes that a test starts."""


@asynccontextmanager
async def in_own_task(context: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
    """Enter and leave `context` in the same task, as task groups require. A fixture does not guarantee that."""
    entered: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    leave = asyncio.Event()

    async def hold() -> None:
        try:
            async with context as value:
                entered.set_result(value)
                await leave.wait()
        except BaseException as error:
            if entered.done():
                raise
            entered.set_exception(error)

    task = asyncio.create_task(hold(), name="hold a fixture's context")
    try:
        yield await entered
    finally:
        leave.set()
        await task


@asynccontextmanager
async def embedded(location: Path) -> AsyncIterator[EventLog]:
    async with await EmbeddedLog.open(location) as log:
        yield log


def member(replica: str, slots: int = 4) -> Member:
    return Member(replica=replica, engine="engine-1", address=None, slots=slots, version="0")


@asynccontextmanager
async def consul_parts(
    prefix: str, address: str, replica: str | None = None
) -> AsyncIterator[tuple[ConsulKV, ConsulMembership, ConsulLog]]:
    """Yield the client, the membership and the log of a replica that has joined."""
    async with (
        ConsulKV(ConsulConfig(address=address, prefix=prefix)) as kv,
        ConsulMembership.open(kv) as membership,
        ConsulLog.open(kv, membership.fence) as log,
    ):
        await membership.join(member(replica or f"rep_{secrets.token_hex(8)}"))
        yield kv, membership, log


@asynccontextmanager
async def consul(location: Path) -> AsyncIterator[EventLog]:
    async with in_own_task(consul_parts(prefix_of(location), os.environ[CONSUL])) as (_, _, log):
        yield log


def prefix_of(location: Path) -> str:
    """Derive a prefix of keys from a path."""
    return f"test/{hashlib.sha256(str(location).encode()).hexdigest()[:16]}"


@asynccontextmanager
async def files(location: Path) -> AsyncIterator[BlobStore]:
    yield await FileBlobs.open(location)


@asynccontextmanager
async def consul_chunks(location: Path) -> AsyncIterator[BlobStore]:
    async with in_own_task(consul_parts(prefix_of(location), os.environ[CONSUL])) as (kv, membership, _):
        yield ConsulBlobs(kv, membership.fence)


@asynccontextmanager
async def object_files(location: Path) -> AsyncIterator[BlobStore]:
    yield ObjectBlobs.at(f"file://{location}", "deployment-1")


@asynccontextmanager
async def s3(location: Path) -> AsyncIterator[BlobStore]:
    """Yield a blob store in the server that the environment names."""
    yield ObjectBlobs.at(f"s3://{BUCKET}/{prefix_of(location)}", "deployment-1")


LOGS: dict[str, OpenLog] = {"embedded": embedded, "consul": consul}
BLOBS: dict[str, OpenBlobs] = {
    "files": files,
    "consul": consul_chunks,
    "object files": object_files,
    "s3": s3,
}
