"""The blob store in Consul only: markers of uploads, their removal, and the size limit."""

from collections.abc import AsyncIterator

import pytest

from pyexec.adapters.consul.blobs import BLOB_BYTES_MAX, ConsulBlobs
from pyexec.adapters.consul.kv import Operation
from pyexec.errors import TooLarge
from tests.contract.blobs import SourceBroke, content, stream
from tests.contract.conftest import Parts
from tests.events import new_id, submitted

pytestmark = pytest.mark.service


async def test_an_upload_is_marked_until_the_first_event(parts: Parts) -> None:
    kv, membership, log = parts
    blobs = ConsulBlobs(kv, membership.fence)
    begun, refused, broken = new_id(), new_id(), new_id()
    await blobs.put(f"{begun}/payload", stream(b"x"))
    await blobs.put(f"{refused}/payload", stream(b"x"))
    assert (await log.open_executions()).lengths == {}
    assert f"inflight/{refused}" in await kv.keys("inflight/")
    await log.append(begun, 0, [submitted()])
    await blobs.delete(f"{refused}/payload")

    async def breaking() -> AsyncIterator[bytes]:
        yield b"x" * 600_000
        raise SourceBroke

    with pytest.raises(SourceBroke):
        await blobs.put(f"{broken}/payload", breaking())
    assert (await log.open_executions()).lengths == {begun: 1}
    assert list(await kv.keys("inflight/")) == ["inflight/", f"inflight/{begun}"]
    assert all(begun in key for key in await kv.keys("executions/"))


async def never(_: str) -> bool:
    """Say that no execution exists. The store must check the log nevertheless."""
    return False


async def test_uploads_of_dead_replicas_are_swept(parts: Parts) -> None:
    kv, membership, log = parts
    blobs = ConsulBlobs(kv, membership.fence)
    mine, theirs, begun = new_id(), new_id(), new_id()
    dead = ConsulBlobs(kv, lambda: Operation(verb="check-session", key="replicas/rep_dead"))
    await blobs.put(f"{mine}/payload", stream(b"x"))
    await dead.put(f"{theirs}/payload", stream(b"x"))
    await dead.put(f"{begun}/payload", stream(b"x"))
    await log.append(begun, 0, [submitted()])
    me = membership.fence().key.removeprefix("replicas/")
    await blobs.sweep({me}, never)
    assert await content(blobs, f"{mine}/payload") == b"x"
    assert await content(blobs, f"{begun}/payload") == b"x"
    assert not any(theirs in key for key in [*await kv.keys("executions/"), *await kv.keys("inflight/")])


async def test_a_blob_over_the_limit_names_the_setting(parts: Parts) -> None:
    kv, membership, _ = parts
    blobs = ConsulBlobs(kv, membership.fence)
    name = f"{new_id()}/payload"
    await blobs.put(name, stream(b"x" * BLOB_BYTES_MAX))
    with pytest.raises(TooLarge, match="PYEXEC_BLOB_URL"):
        await blobs.put(f"{new_id()}/payload", stream(b"x" * BLOB_BYTES_MAX, b"x"))
    await blobs.delete(name)
    assert list(await kv.keys("executions/")) == []
    assert list(await kv.keys("inflight/")) == ["inflight/"]
