"""The blob store in S3, Google Cloud Storage, Azure or a directory, as the scheme of its URL says."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Set
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

import anyio
import obstore
from attrs import frozen
from obstore.exceptions import BaseError
from obstore.store import ObjectStore, from_url

from pyexec.adapters.blobs.file_store import CHUNK_BYTES, ORPHAN_AGE, check_name, is_own_name
from pyexec.errors import SettingsError, Unavailable

PART_BYTES: Final = 8 * 1024 * 1024
"""The part size of a multipart upload. S3 requires 5 MiB, and allows 10,000 parts."""
CONCURRENT_PARTS: Final = 2
SMALL_BYTES: Final = 1024 * 1024
"""A blob of up to this size is stored in one request."""
SMALL_SECONDS: Final = 10
"""Time limit, in seconds, of such a request and of a deletion. A part of a larger blob has obstore's default, 30 s."""
READ_LIMITS: Final[Any] = {"timeout": timedelta(days=1), "read_timeout": timedelta(seconds=30)}
"""The reader may be slow, so the whole request may take a day. `read_timeout` ends it if the store sends nothing."""
RETRY: Final[Any] = {"max_retries": 3, "retry_timeout": timedelta(seconds=10)}
SCHEMES: Final = ("file", "s3", "gs", "az")


@frozen
class _Stores:
    """Clients of one store with different time limits: for multipart uploads, for short requests, and for reading."""

    upload: ObjectStore
    quick: ObjectStore
    read: ObjectStore

    @classmethod
    def at(cls, url: str) -> Self:
        """Return the store at `url`. Raises an error of obstore if it is not valid."""
        if url.startswith("file:"):
            directory = from_url(url, mkdir=True)
            return cls(directory, directory, directory)

        def store(**limits: Any) -> ObjectStore:
            # Plain HTTP is used only if the operator sets an endpoint with http://.
            options: Any = {"allow_http": True, **limits}
            return from_url(url, client_options=options, retry_config=RETRY)

        return cls(store(), store(timeout=timedelta(seconds=SMALL_SECONDS)), store(**READ_LIMITS))


class ObjectBlobs:
    """`ports.BlobStore` under a URL. Credentials come from the environment variables of the respective store.

    Every object lies under `deployment`, so deployments and other programs can share a bucket."""

    bytes_max: Final = None

    def __init__(self, stores: _Stores, url: str, deployment: str) -> None:
        self._stores = stores
        self._url = url
        self._prefix = f"{deployment}/"

    @classmethod
    def at(cls, url: str, deployment: str) -> Self:
        """Return the deployment's store at `url`; sends no request. Raises `SettingsError` if the URL is not valid."""
        scheme = url.partition("://")[0]
        if scheme not in SCHEMES or scheme == url:
            allowed = ", ".join(f"{name}://" for name in SCHEMES)
            raise SettingsError(f"PYEXEC_BLOB_URL is {url!r}; allowed are URLs that begin with {allowed}")
        try:
            return cls(_Stores.at(url), url, deployment)
        except (BaseError, ValueError, OSError) as error:
            raise SettingsError(
                f"PYEXEC_BLOB_URL is {url!r}, which cannot be used: {_first_line(error)}"
            ) from error

    async def put(self, name: str, chunks: AsyncIterator[bytes]) -> None:
        begin, is_whole = await _beginning(chunks)
        if is_whole:
            await self._put_small(name, begin)
        else:
            await self._put_large(name, begin, chunks)

    async def _put_small(self, name: str, data: bytes) -> None:
        """Store `data` in one request."""
        try:
            with anyio.CancelScope(shield=True):  # a deletion that follows must not overtake it
                await obstore.put_async(self._stores.quick, self._key(name), data, use_multipart=False)
        except (BaseError, OSError) as error:
            raise self._not_stored(name, error) from error

    async def _put_large(self, name: str, begin: bytes, chunks: AsyncIterator[bytes]) -> None:
        """Store `begin` and `chunks` in parts."""
        upload = _Upload(self._stores.upload, self._key(name))
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(upload.run, name=f"upload of {name}")
                await upload.feed(begin, chunks)
        except ExceptionGroup as group:
            raise group.exceptions[0] from group.exceptions[0].__cause__
        if upload.failure is not None:
            raise self._not_stored(name, upload.failure) from upload.failure

    def _not_stored(self, name: str, error: Exception) -> Unavailable:
        return Unavailable(f"storing {name} in the blob store at {self._url} failed: {_first_line(error)}")

    async def read(self, name: str) -> AsyncIterator[bytes]:
        key = self._key(name)
        with self._translate_errors(name):
            response = await obstore.get_async(self._stores.read, key)
            chunks = aiter(response.stream(min_chunk_size=CHUNK_BYTES))
        while True:
            with self._translate_errors(name):
                chunk = await anext(chunks, None)
            if chunk is None:
                return
            yield bytes(chunk)

    async def delete(self, name: str) -> None:
        key = self._key(name)
        try:
            with self._translate_errors(name):
                await obstore.delete_async(self._stores.quick, key)
        except _NotFound:
            return

    async def sweep(self, alive: Set[str], exists: Callable[[str], Awaitable[bool]]) -> None:
        del alive  # objects do not record which replica stored them
        newest = datetime.now(UTC) - ORPHAN_AGE
        with self._translate_errors("*"):
            async for page in self._stores.read.list(prefix=self._prefix):
                old = [entry["path"] for entry in page if entry["last_modified"] < newest]
                for name in filter(is_own_name, (path.removeprefix(self._prefix) for path in old)):
                    if not await exists(name.partition("/")[0]):
                        await self.delete(name)

    def _key(self, name: str) -> str:
        return self._prefix + check_name(name)

    @contextmanager
    def _translate_errors(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise _NotFound(f"blob {name} does not exist") from error
        except (BaseError, OSError) as error:
            raise Unavailable(
                f"the blob store at {self._url} failed at {name}: {_first_line(error)}"
            ) from error


async def _beginning(chunks: AsyncIterator[bytes]) -> tuple[bytes, bool]:
    """Read chunks until they have more than `SMALL_BYTES`. Return them, and True if they are the whole blob."""
    read, size = [], 0
    async for chunk in chunks:
        read.append(chunk)
        size += len(chunk)
        if size > SMALL_BYTES:
            return b"".join(read), False
    return b"".join(read), True


class _NotFound(Unavailable):
    """The blob does not exist."""


class _UploadAborted(Exception):
    """Raised to the store if the source of an upload ends early, so that the store keeps nothing."""


class _Upload:
    """One upload. obstore pulls chunks from an iterator, and drops the upload if that raises; the caller pushes.

    A channel connects the two. If the caller's source fails or is cancelled, the iterator raises."""

    def __init__(self, store: ObjectStore, name: str) -> None:
        self.failure: Exception | None = None
        self._store = store
        self._name = name
        self._complete = False
        self._send, self._receive = anyio.create_memory_object_stream[bytes](0)

    async def feed(self, begin: bytes, chunks: AsyncIterator[bytes]) -> None:
        """Send `begin` and all chunks, unless the store has given up."""
        with self._send:
            try:
                await self._send.send(begin)
                async for chunk in chunks:
                    await self._send.send(chunk)
            except anyio.BrokenResourceError:
                return
            self._complete = True

    async def run(self) -> None:
        """Store the chunks that `feed` sends. `failure` is the error of the store, if there is one."""
        with anyio.CancelScope(shield=True), self._receive:
            try:
                await obstore.put_async(
                    self._store,
                    self._name,
                    self._received(),
                    chunk_size=PART_BYTES,
                    max_concurrency=CONCURRENT_PARTS,
                )
            except _UploadAborted:
                return
            except (BaseError, OSError) as error:
                self.failure = error

    async def _received(self) -> AsyncIterator[bytes]:
        async for chunk in self._receive:
            yield chunk
        if not self._complete:
            raise _UploadAborted


def _first_line(error: BaseException) -> str:
    """Return the first line of an error of obstore, which may go on for pages."""
    return str(error).partition("\n")[0]
