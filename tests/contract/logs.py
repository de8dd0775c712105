"""Every event log and blob store that the contract suites run against, by name.

A location is a path that no other test uses; an adapter may take it as a directory or as any other name."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from pyexec.adapters.blobs import FileBlobs
from pyexec.adapters.embedded import EmbeddedLog
from pyexec.ports import BlobStore, EventLog

OpenLog = Callable[[Path], AbstractAsyncContextManager[EventLog]]
OpenBlobs = Callable[[Path], AbstractAsyncContextManager[BlobStore]]


@asynccontextmanager
async def embedded(location: Path) -> AsyncIterator[EventLog]:
    async with await EmbeddedLog.open(location) as log:
        yield log


@asynccontextmanager
async def files(location: Path) -> AsyncIterator[BlobStore]:
    yield await FileBlobs.open(location)


LOGS: dict[str, OpenLog] = {"embedded": embedded}
BLOBS: dict[str, OpenBlobs] = {"files": files}
