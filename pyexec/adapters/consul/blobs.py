"""The blob store in Consul, for deployments without another one: chunks, and a manifest that is written last."""

import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Set
from typing import Final

import anyio
from attrs import frozen

from pyexec.adapters.blobs.file_store import check_name
from pyexec.adapters.consul.index import InvalidKeyReporter, read_inflight
from pyexec.adapters.consul.kv import ConsulKV, Operation, TransactionConflict
from pyexec.adapters.consul.schema import (
    INFLIGHT,
    UPLOADING,
    InflightEntry,
    blob_prefix,
    decode_json,
    event_key,
    execution_prefix,
    replica_key,
)
from pyexec.errors import CorruptLog, TooLarge, Unavailable

CHUNK_BYTES: Final = 256 * 1024
BLOB_BYTES_MAX: Final = 8 * 1024 * 1024


@frozen(kw_only=True)
class Manifest:
    """The number of chunks of a complete blob, and the id of the upload that wrote them."""

    upload: str
    chunks: int

    def encode(self) -> bytes:
        return json.dumps({"writing": self.upload, "chunks": self.chunks}).encode()


class ConsulBlobs:
    """`ports.BlobStore` on Consul, up to 8 MiB a blob. `fence` names this replica."""

    bytes_max: Final = BLOB_BYTES_MAX

    def __init__(
        self, kv: ConsulKV, fence: Callable[[], Operation], invalid: InvalidKeyReporter | None = None
    ) -> None:
        self._kv = kv
        self._fence = fence
        self._invalid = invalid or InvalidKeyReporter()

    async def put(self, name: str, chunks: AsyncIterator[bytes]) -> None:
        prefix = _prefix(name)
        execution_id = name.partition("/")[0]
        upload = secrets.token_hex(8)
        marker = InflightEntry(state=UPLOADING, owner=self._fence().key.rpartition("/")[2])
        # `sweep` finds interrupted uploads by this marker. An execution that has events has an entry already.
        await self._kv.put(f"{INFLIGHT}{execution_id}", marker.encode(), index=0)
        try:
            count = 0
            async for chunk in _in_chunks(name, chunks):
                await self._kv.put(f"{prefix}{upload}/{count:06d}", chunk)
                count += 1
            replaced = await self._manifest(name)
            await self._kv.put(prefix, Manifest(upload=upload, chunks=count).encode())
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._delete(execution_id, f"{prefix}{upload}/")
            raise
        if replaced is not None:
            await self._kv.delete_tree(f"{prefix}{replaced.upload}/")

    async def read(self, name: str) -> AsyncIterator[bytes]:
        manifest = await self._manifest(name)
        if manifest is None:
            raise Unavailable(f"blob {name} does not exist")
        for number in range(manifest.chunks):
            _, entry = await self._kv.get(f"{_prefix(name)}{manifest.upload}/{number:06d}")
            if entry is None:
                raise Unavailable(f"blob {name} was deleted or replaced while it was read")
            yield entry.value

    async def delete(self, name: str) -> None:
        await self._delete(name.partition("/")[0], _prefix(name))

    async def sweep(self, alive: Set[str], exists: Callable[[str], Awaitable[bool]]) -> None:
        listing = await self._kv.recurse(INFLIGHT)
        for execution_id, entry in read_inflight(listing.entries, self._invalid).items():
            if entry.state != UPLOADING or entry.owner is None or entry.owner in alive:
                continue
            if await exists(execution_id):
                continue
            try:
                await self._kv.transaction(
                    [
                        Operation(verb="check-not-exists", key=event_key(execution_id, 1)),
                        Operation(verb="check-not-exists", key=replica_key(entry.owner)),
                        Operation(verb="delete-tree", key=execution_prefix(execution_id)),
                        Operation(verb="delete", key=f"{INFLIGHT}{execution_id}"),
                    ]
                )
            except TransactionConflict:
                continue  # its first event has been written, or its replica is a member again

    async def _manifest(self, name: str) -> Manifest | None:
        prefix = _prefix(name)
        _, entry = await self._kv.get(prefix)
        if entry is None:
            return None
        try:
            document = decode_json(entry.value)
            return Manifest(upload=document["writing"], chunks=document["chunks"])
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptLog(f"{prefix} is not a valid manifest: {error!r}") from error

    async def _delete(self, execution_id: str, prefix: str) -> None:
        """Delete chunks, and the marker of the upload if nothing else of an execution without events is left."""
        await self._kv.delete_tree(prefix)
        _, entry = await self._kv.get(f"{INFLIGHT}{execution_id}")
        found = read_inflight([entry] if entry else [], self._invalid)
        if entry is not None and any(marker.state == UPLOADING for marker in found.values()):
            remaining = await self._kv.keys(execution_prefix(execution_id))
            if not remaining:
                await self._kv.delete(entry.key, index=entry.index)


def _prefix(name: str) -> str:
    execution_id, _, blob = check_name(name).partition("/")
    return blob_prefix(execution_id, blob)


async def _in_chunks(name: str, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the same bytes in chunks of the stored size. Raises `TooLarge` as soon as they exceed the limit."""
    buffer, total = bytearray(), 0
    async for piece in pieces:
        total += len(piece)
        if total > BLOB_BYTES_MAX:
            raise TooLarge(
                f"{name} is larger than {BLOB_BYTES_MAX} bytes, the limit of the blob store in Consul; "
                "set PYEXEC_BLOB_URL to use another store"
            )
        buffer += piece
        while len(buffer) >= CHUNK_BYTES:
            yield bytes(buffer[:CHUNK_BYTES])
            del buffer[:CHUNK_BYTES]
    if buffer:
        yield bytes(buffer)
