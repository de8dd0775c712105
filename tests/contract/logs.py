"""Every event log and blob store that the contract suites run against, by name.

A location is a path that no other test uses; an adapter may take it as a directory or as any other name."""

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
from pyexec.adapters.consul.kv import ConsulConfig, ConsulKV
from pyexec.adapters.consul.log import ConsulLog
from pyexec.adapters.consul.membership import ConsulMembership
from pyexec.adapters.sqlite.log import EmbeddedLog
from pyexec.ports import BlobStore, EventLog, Member
from tests.support.s3 import BUCKET

T = TypeVar("T")
OpenLog = Callable[[Path], AbstractAsyncContextManager[EventLog]]
OpenBlobs = Callable[[Path], AbstractAsyncContextManager[BlobStore]]

CONSUL = "CONTRACT_TEST_CONSUL"
"""The variable that says where the tests' Consul answers, in the processes that they start, too."""


@asynccontextmanager
async def in_own_task(context: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
    """Enters and leaves `context` in one task, as task groups want it: a fixture's two halves have each their own."""
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
    prefix: str, address: str
) -> AsyncIterator[tuple[ConsulKV, ConsulMembership, ConsulLog]]:
    """A replica's parts: its way to Consul, its membership, which it has joined, and the log."""
    async with (
        ConsulKV(ConsulConfig(address=address, prefix=prefix)) as kv,
        ConsulMembership.open(kv) as membership,
        ConsulLog.open(kv, membership.fence) as log,
    ):
        await membership.join(member(f"rep_{secrets.token_hex(8)}"))
        yield kv, membership, log


@asynccontextmanager
async def consul(location: Path) -> AsyncIterator[EventLog]:
    async with in_own_task(consul_parts(prefix_of(location), os.environ[CONSUL])) as (_, _, log):
        yield log


def prefix_of(location: Path) -> str:
    """The keys that stand for a path."""
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
    yield ObjectBlobs.at(f"file://{location}")


@asynccontextmanager
async def s3(location: Path) -> AsyncIterator[BlobStore]:
    """In the server that the environment names."""
    yield ObjectBlobs.at(f"s3://{BUCKET}/{prefix_of(location)}")


LOGS: dict[str, OpenLog] = {"embedded": embedded, "consul": consul}
BLOBS: dict[str, OpenBlobs] = {
    "files": files,
    "consul": consul_chunks,
    "object files": object_files,
    "s3": s3,
}
