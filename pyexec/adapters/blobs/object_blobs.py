"""Blobs in an object store: a directory, S3, Google Cloud Storage or Azure, by the form of its URL."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Set
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

import anyio
import obstore
from obstore.exceptions import BaseError
from obstore.store import ObjectStore, from_url

from pyexec.adapters.blobs.file_blobs import ABANDONED_AFTER, CHUNK_BYTES, checked
from pyexec.errors import SettingsError, Unavailable

PART_BYTES: Final = 8 * 1024 * 1024
"""Of a multipart upload; S3 takes 5 MiB at least, and 10,000 parts at most."""
PARTS_AT_ONCE: Final = 2
RETRY: Final[Any] = {"max_retries": 3, "retry_timeout": timedelta(seconds=10)}
SCHEMES: Final = ("file", "s3", "gs", "az")


class _Abandoned(Exception):
    """The source of an upload ended early: nothing is to be kept."""


class ObjectBlobs:
    """`ports.BlobStore` under a URL. Keys for it come from the environment, as each store names them."""

    bytes_max: Final = None

    def __init__(self, store: ObjectStore, url: str) -> None:
        self._store = store
        self._url = url

    @classmethod
    def at(cls, url: str) -> Self:
        """The store at `url`; asks it nothing yet. Raises `SettingsError` for a URL that cannot be one."""
        scheme = url.partition("://")[0]
        if scheme not in SCHEMES or scheme == url:
            allowed = ", ".join(f"{name}://" for name in SCHEMES)
            raise SettingsError(f"PYEXEC_BLOB_URL is {url!r}; allowed is what begins with {allowed}")
        try:
            if scheme == "file":
                return cls(from_url(url, mkdir=True), url)
            # Plain HTTP is used only where an endpoint of the operator's own is named so.
            options: Any = {"allow_http": True}
            return cls(from_url(url, client_options=options, retry_config=RETRY), url)
        except (BaseError, ValueError, OSError) as error:
            raise SettingsError(f"PYEXEC_BLOB_URL is {url!r}; it cannot be used: {_brief(error)}") from error

    async def put(self, name: str, chunks: AsyncIterator[bytes]) -> None:
        upload = _Upload(self._store, checked(name))
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(upload.run, name=f"upload of {name}")
                await upload.feed(chunks)
        except ExceptionGroup as group:
            raise group.exceptions[0] from group.exceptions[0].__cause__
        if upload.failure is not None:
            raise Unavailable(
                f"the blob store at {self._url} cannot take {name}: {_brief(upload.failure)}"
            ) from upload.failure

    async def read(self, name: str) -> AsyncIterator[bytes]:
        with self._translated(checked(name)):
            answer = await obstore.get_async(self._store, name)
            chunks = aiter(answer.stream(min_chunk_size=CHUNK_BYTES))
        while True:
            with self._translated(name):
                chunk = await anext(chunks, None)
            if chunk is None:
                return
            yield bytes(chunk)

    async def delete(self, name: str) -> None:
        try:
            with self._translated(checked(name)):
                await obstore.delete_async(self._store, name)
        except _NotThere:
            return

    async def sweep(self, alive: Set[str], exists: Callable[[str], Awaitable[bool]]) -> None:
        del alive  # an object does not say who has put it
        newest = datetime.now(UTC) - ABANDONED_AFTER
        with self._translated("*"):
            async for page in self._store.list():
                for name in [entry["path"] for entry in page if entry["last_modified"] < newest]:
                    if not await exists(name.partition("/")[0]):
                        await self.delete(name)

    @contextmanager
    def _translated(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise _NotThere(f"there is no blob {name}") from error
        except (BaseError, OSError) as error:
            raise Unavailable(
                f"the blob store at {self._url} cannot be used for {name}: {_brief(error)}"
            ) from error


class _NotThere(Unavailable):
    """There is no such blob."""


class _Upload:
    """One blob on its way. The store pulls, and lets go of what it has when its source raises; so what the caller
    pushes is handed over here, and a source that breaks or is cancelled becomes an error on the other side."""

    def __init__(self, store: ObjectStore, name: str) -> None:
        self.failure: Exception | None = None
        self._store = store
        self._name = name
        self._whole = False
        self._send, self._receive = anyio.create_memory_object_stream[bytes](0)

    async def feed(self, chunks: AsyncIterator[bytes]) -> None:
        """Hands everything over, unless the store has given up."""
        with self._send:
            try:
                async for chunk in chunks:
                    await self._send.send(chunk)
            except anyio.BrokenResourceError:
                return
            self._whole = True

    async def run(self) -> None:
        """Stores what is handed over; `failure` says why it could not."""
        with anyio.CancelScope(shield=True), self._receive:
            try:
                await obstore.put_async(
                    self._store,
                    self._name,
                    self._handed_over(),
                    chunk_size=PART_BYTES,
                    max_concurrency=PARTS_AT_ONCE,
                )
            except _Abandoned:
                return
            except (BaseError, OSError) as error:
                self.failure = error

    async def _handed_over(self) -> AsyncIterator[bytes]:
        async for chunk in self._receive:
            yield chunk
        if not self._whole:
            raise _Abandoned


def _brief(error: BaseException) -> str:
    """The store's errors go on for pages; the first line says what happened."""
    return str(error).partition("\n")[0]
