"""Small blobs in Consul's keys, where no other store is set: in chunks, under a manifest that is written last."""

import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Set
from typing import Final

import anyio
from attrs import frozen

from pyexec.adapters.blobs.file_blobs import checked
from pyexec.adapters.consul.index import UPLOADING, Complaints, Inflight, read_inflight
from pyexec.adapters.consul.keys import (
    INFLIGHT,
    blob_prefix,
    event_key,
    execution_prefix,
    replica_key,
)
from pyexec.adapters.consul.kv import ConsulKV, Operation, TransactionLost
from pyexec.errors import CorruptLog, TooLarge, Unavailable

CHUNK_BYTES: Final = 256 * 1024
BLOB_BYTES_MAX: Final = 8 * 1024 * 1024


@frozen(kw_only=True)
class Manifest:
    """A whole blob: how many chunks it has, under a name that no other writing of it has."""

    writing: str
    chunks: int

    def encode(self) -> bytes:
        return json.dumps({"writing": self.writing, "chunks": self.chunks}).encode()


class ConsulBlobs:
    """`ports.BlobStore` on Consul, up to 8 MiB a blob. `fence` says who this replica is."""

    bytes_max: Final = BLOB_BYTES_MAX

    def __init__(
        self, kv: ConsulKV, fence: Callable[[], Operation], complaints: Complaints | None = None
    ) -> None:
        self._kv = kv
        self._fence = fence
        self._complaints = complaints or Complaints()

    async def put(self, name: str, chunks: AsyncIterator[bytes]) -> None:
        prefix = _prefix(name)
        execution_id = name.partition("/")[0]
        writing = secrets.token_hex(8)
        uploading = Inflight(state=UPLOADING, owner=self._fence().key.rpartition("/")[2])
        # What a crash leaves is found by this; an execution that has begun is in there already.
        await self._kv.put(f"{INFLIGHT}{execution_id}", uploading.encode(), index=0)
        try:
            count = 0
            async for chunk in _in_chunks(name, chunks):
                await self._kv.put(f"{prefix}{writing}/{count:06d}", chunk)
                count += 1
            before = await self._manifest(name)
            await self._kv.put(prefix, Manifest(writing=writing, chunks=count).encode())
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._forget(execution_id, f"{prefix}{writing}/")
            raise
        if before is not None:
            await self._kv.delete_tree(f"{prefix}{before.writing}/")

    async def read(self, name: str) -> AsyncIterator[bytes]:
        manifest = await self._manifest(name)
        if manifest is None:
            raise Unavailable(f"there is no blob {name}")
        for number in range(manifest.chunks):
            _, entry = await self._kv.get(f"{_prefix(name)}{manifest.writing}/{number:06d}")
            if entry is None:
                raise Unavailable(f"the blob {name} was removed or replaced while it was read")
            yield entry.value

    async def delete(self, name: str) -> None:
        await self._forget(name.partition("/")[0], _prefix(name))

    async def sweep(self, alive: Set[str], exists: Callable[[str], Awaitable[bool]]) -> None:
        listing = await self._kv.recurse(INFLIGHT)
        for execution_id, entry in read_inflight(listing.entries, self._complaints).items():
            if entry.state == UPLOADING and entry.owner is not None and entry.owner not in alive:
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
                except TransactionLost:
                    continue  # it has begun, or its replica is back

    async def _manifest(self, name: str) -> Manifest | None:
        prefix = _prefix(name)
        _, entry = await self._kv.get(prefix)
        if entry is None:
            return None
        try:
            document = json.loads(entry.value)
            return Manifest(writing=document["writing"], chunks=document["chunks"])
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptLog(f"{prefix} is no manifest of ours: {error!r}") from error

    async def _forget(self, execution_id: str, prefix: str) -> None:
        """Removes chunks, and the mark of an upload when nothing is left of an execution that has not begun."""
        await self._kv.delete_tree(prefix)
        _, mark = await self._kv.get(f"{INFLIGHT}{execution_id}")
        uploads = read_inflight([mark] if mark else [], self._complaints)
        if mark is not None and any(entry.state == UPLOADING for entry in uploads.values()):
            left = await self._kv.keys(execution_prefix(execution_id))
            if not left:
                await self._kv.delete(mark.key, index=mark.index)


def _prefix(name: str) -> str:
    execution_id, _, blob = checked(name).partition("/")
    return blob_prefix(execution_id, blob)


async def _in_chunks(name: str, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in the chunks that are stored; raises `TooLarge` as soon as they are too many."""
    buffer, total = bytearray(), 0
    async for piece in pieces:
        total += len(piece)
        if total > BLOB_BYTES_MAX:
            raise TooLarge(
                f"{name} is over the {BLOB_BYTES_MAX} bytes that are kept in Consul; the setting PYEXEC_BLOB_URL "
                "names a store for more"
            )
        buffer += piece
        while len(buffer) >= CHUNK_BYTES:
            yield bytes(buffer[:CHUNK_BYTES])
            del buffer[:CHUNK_BYTES]
    if buffer:
        yield bytes(buffer)
