"""Uploads: the request to run something, and its archive, which is checked and hashed as it streams in."""

import hashlib
import logging
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import AsyncExitStack, contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Self

import anyio
import anyio.lowlevel
import anyio.to_thread
from anyio import AsyncFile
from attrs import evolve, field, frozen

from pyexec.codec import to_json_without_defaults
from pyexec.correlation import Correlation, correlate_execution, current_correlation
from pyexec.domain.archive import ArchiveCheck, ArchiveLimits
from pyexec.domain.events import Failed, FailureType, Submitted
from pyexec.domain.inline_metadata import PREFIX, Script
from pyexec.domain.spec import MEBIBYTE, Limits, Metadata, Policy, Spec, resolve
from pyexec.domain.tar_member import read_member
from pyexec.domain.tenants import DEFAULT_TENANT
from pyexec.errors import (
    ImageUnavailable,
    InvalidRequest,
    KeyTaken,
    NotWritten,
    QueueTimeout,
    SandboxRefused,
    TooLarge,
    shorten,
)
from pyexec.metrics import NOOP_METER, UPLOAD_BYTES, Meter
from pyexec.ports import IdempotencyKey
from pyexec.services.active_runs import Run
from pyexec.services.clock import nonce, now
from pyexec.services.idempotency import check_same_request, fingerprint, key_hash

logger = logging.getLogger(__name__)

SPOOL_CHUNK_BYTES = 256 * 1024
CHECK_BYTES = 32 * 1024
RESOLVE_INLINE_MAX = 2000
"""Maximum number of list items and characters of requirements that the event loop itself resolves."""
KEY_INLINE_MAX = 32 * 1024
"""Maximum number of characters of metadata that the event loop itself encodes."""
FAILURES = {QueueTimeout: FailureType.QUEUE_TIMEOUT, ImageUnavailable: FailureType.IMAGE_UNAVAILABLE}
"""Errors that end an acceptable execution before it starts. The caller gets a failed result instead of an error."""


@frozen(kw_only=True)
class Upload:
    """One request to run something.

    `identity` names the endpoint, and options that are not in the metadata. Two requests with one idempotency key are
    the same request only if their `identity`, metadata and archive are equal.
    `code_field` is the field of the request that holds the code. `texts` are the contents of the archive if they are in
    memory already."""

    metadata: Metadata
    archive: AsyncIterator[bytes]
    key: str | None = None
    identity: str = ""
    code_field: str = "tar"
    texts: Collection[str] | None = None
    eval_last_expr: bool = False
    tenant: str = DEFAULT_TENANT


async def resolve_upload(upload: Upload, policy: Policy) -> Spec:
    """Return the spec of an upload; raise `InvalidRequest` if it is not allowed.

    A thread resolves large metadata, so that other requests are not delayed."""
    metadata = upload.metadata
    if metadata.webhook_url is not None:
        policy.webhooks.check(metadata.webhook_url, upload.tenant)
    items = len(metadata.env_vars) + len(metadata.script_args) + len(metadata.pre_commands)
    if items + len(metadata.requirements_txt or "") > RESOLVE_INLINE_MAX:
        spec = await anyio.to_thread.run_sync(resolve, metadata, policy)
    else:
        spec = resolve(metadata, policy)
    return evolve(spec, eval_last_expr=upload.eval_last_expr, tenant=upload.tenant)


class CheckedArchive:
    """The archive of an upload. Every byte is checked before it is passed on, and hashed if a key needs it."""

    def __init__(self, upload: Upload, spec: Spec, members_max: int, meter: Meter = NOOP_METER) -> None:
        limits = ArchiveLimits(bytes_max=spec.limits.disk_mb * MEBIBYTE, members_max=members_max)
        self._check = ArchiveCheck(limits, spec.entrypoint)
        self._upload = upload
        self._digest = hashlib.sha256() if upload.key is not None else None
        self._key: IdempotencyKey | None = None
        self._ahead: list[bytes] = []
        self._is_whole = False
        """True if `_ahead` is the whole archive."""
        self._rest = _checked(upload, self._check, self._digest, meter)

    @property
    def code_field(self) -> str:
        """Return the name of the request's field that holds the code."""
        return self._upload.code_field

    async def read_ahead(self, bytes_max: int) -> bool:
        """Read up to about `bytes_max` bytes into memory. Return True if that was the whole archive.

        What was read is kept, and `chunks` yields it first. A whole archive can be iterated any number of times.
        Raises `InvalidRequest`."""
        size = sum(map(len, self._ahead))
        while not self._is_whole and (size <= bytes_max or self._upload.texts is not None):
            chunk = await anext(self._rest, None)
            if chunk is None:
                self._is_whole = True
                break
            self._ahead.append(chunk)
            size += len(chunk)
        return self._is_whole

    async def read_script(self, bytes_max: int) -> Script | None:
        """Return the file to run if it may have inline metadata and is in the first `bytes_max` bytes of the archive.

        If the archive is longer, the file to run is certain only if the caller has named it, or if it is `main.py` at
        the root. Raises `InvalidRequest`."""
        if self._upload.texts is not None and not any(PREFIX.decode() in text for text in self._upload.texts):
            return None
        is_whole = await self.read_ahead(bytes_max)
        archive = b"".join(self._ahead)
        if PREFIX not in archive:
            return None
        name = self.entrypoint() if is_whole else self._check.entrypoint or "main.py"
        source = await anyio.to_thread.run_sync(read_member, archive, name)
        return None if source is None else Script(name, source, self.code_field, is_whole)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the archive's bytes. Raises `InvalidRequest` for a malformed archive, after the last byte at the
        latest."""
        for chunk in self._ahead:
            yield chunk
        async for chunk in self._rest:
            yield chunk

    async def read_to_end(self) -> None:
        """Check the rest of the archive without using it. Raises `InvalidRequest`."""
        async for _ in self._rest:
            pass

    def entrypoint(self) -> str:
        """Return the file to run. Call it after the last chunk."""
        return self._check.finish()

    async def key(self) -> IdempotencyKey | None:
        """Return the caller's key with the fingerprint of the whole request. Call it after the last chunk.

        A thread encodes and hashes large metadata. The result is kept."""
        if self._upload.key is None or self._digest is None:
            return None
        if self._key is None:
            compute = partial(_idempotency_key, self._upload, self._upload.key, self._digest.hexdigest())
            is_large = _characters(self._upload.metadata) > KEY_INLINE_MAX
            self._key = await anyio.to_thread.run_sync(compute) if is_large else compute()
        return self._key


async def _checked(
    upload: Upload, check: ArchiveCheck, digest: "hashlib._Hash | None", meter: Meter
) -> AsyncIterator[bytes]:
    """Yield the archive's bytes, and check them. Raises `InvalidRequest`.

    This is no method: a cycle of references would keep abandoned archives until a garbage collection, which is rare."""
    async for chunk in upload.archive:
        meter.count(UPLOAD_BYTES, by=len(chunk))
        for at in range(0, len(chunk), CHECK_BYTES):
            # A small piece at a time, so that many members in one chunk do not delay other requests.
            if at:
                await anyio.lowlevel.checkpoint()
            with _error_field(upload.code_field):
                check.feed(memoryview(chunk)[at : at + CHECK_BYTES])
        if digest is not None:
            digest.update(chunk)
        yield chunk
    with _error_field(upload.code_field):
        check.finish()


@contextmanager
def _error_field(name: str) -> Iterator[None]:
    """Let an error name the field of the request that the archive was made of."""
    try:
        yield
    except InvalidRequest as error:
        if error.field == "tar":
            error.field = name
        raise


def _characters(metadata: Metadata) -> int:
    """Return the size of the metadata, roughly."""
    items = (*metadata.env_vars, *metadata.script_args, *metadata.pre_commands, *metadata.output_files)
    return len(metadata.stdin) + len(metadata.requirements_txt or "") + sum(map(len, items)) + len(items)


def _idempotency_key(upload: Upload, key: str, archive_sha256: str) -> IdempotencyKey:
    # A replica of another version does not know all fields.
    request = fingerprint(upload.identity, to_json_without_defaults(upload.metadata), archive_sha256)
    return IdempotencyKey(key_hash=key_hash(key, upload.tenant), fingerprint=request)


@frozen
class Submission:
    """One request on its way to being accepted."""

    run: Run
    spec: Spec
    archive: CheckedArchive
    created_at: datetime = field(factory=now)
    request: Correlation = field(factory=current_correlation)

    def event(self, *, pinned: str | None = None, payload: str | None = None) -> Submitted:
        """Return the execution's first event. Call it after the last byte of the archive."""
        spec = evolve(self.spec, entrypoint=self.archive.entrypoint())
        return Submitted(
            at=self.created_at,
            nonce=nonce(),
            spec=spec,
            pinned=pinned,
            payload=payload,
            traceparent=self.request.traceparent,
            tracestate=self.request.tracestate,
        )

    def failure(self, error: QueueTimeout | ImageUnavailable) -> Failed:
        """Return the terminal event of an execution that has failed before its start."""
        return Failed(at=now(), nonce=nonce(), error_type=FAILURES[type(error)], error=str(error))

    async def existing_execution(self, taken: KeyTaken) -> str:
        """Return the execution that has the idempotency key, if this is the same request. Raises `KeyReused`."""
        await self.archive.read_to_end()
        key = await self.archive.key()
        check_same_request(taken, None if key is None else key.fingerprint)
        correlate_execution(taken.execution_id)
        return taken.execution_id


class Spool:
    """An archive in an unnamed file on this machine's disk. Close it once.

    The kernel deletes the file when it is closed, or when the process ends."""

    def __init__(self, file: AsyncFile[bytes], stack: AsyncExitStack) -> None:
        self._file = file
        self._stack = stack

    @classmethod
    async def fill(cls, folder: Path, chunks: AsyncIterator[bytes]) -> Self:
        """Write all `chunks` to a new file in `folder`. If that raises, nothing is left on disk.

        Raises `NotWritten` if the disk is full or fails. The file has no buffer, whose flush at the end would fail
        again."""
        async with AsyncExitStack() as stack:
            with _disk_errors(folder):
                file = await stack.enter_async_context(anyio.TemporaryFile(buffering=0, dir=str(folder)))
            async for chunk in chunks:
                rest = memoryview(chunk)
                with _disk_errors(folder):
                    while rest:
                        rest = rest[await file.write(rest) :]
            return cls(file, stack.pop_all())
        raise AssertionError("the stack suppresses no exception")

    async def read(self) -> AsyncIterator[bytes]:
        """Yield the bytes in order, from the first on."""
        await self._file.seek(0)
        while chunk := await self._file.read(SPOOL_CHUNK_BYTES):
            yield chunk

    async def close(self) -> None:
        """Free the space."""
        await self._stack.aclose()


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Let the caller know that the server has no room for the upload."""
    try:
        yield
    except OSError as error:
        logger.error("an upload cannot be stored in %s: %s", folder, error)
        raise NotWritten(f"the server cannot store the upload: {error.strerror}") from error


def archive_error(error: SandboxRefused, limits: Limits) -> InvalidRequest:
    """Return the error for the caller whose archive the supervisor could not unpack."""
    if error.code == "disk_full":
        text = f"the archive's contents do not fit in disk_mb ({limits.disk_mb} MiB)"
        return TooLarge(text, field="config.disk_mb")
    return InvalidRequest(f"the archive cannot be unpacked: {shorten(str(error))}", field="tar")
