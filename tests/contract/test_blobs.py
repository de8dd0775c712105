"""Blob stores: a blob is stored completely or not at all."""

from collections.abc import AsyncIterator

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyexec.errors import Unavailable
from pyexec.ports import BlobStore
from tests.events import new_id


async def stream(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def content(blobs: BlobStore, name: str) -> bytes:
    return b"".join([chunk async for chunk in blobs.read(name)])


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chunks=st.lists(st.binary(max_size=100), max_size=5))
async def test_a_stored_blob_is_read_back(blobs: BlobStore, chunks: list[bytes]) -> None:
    name = f"{new_id()}/payload"
    await blobs.put(name, stream(*chunks))
    assert await content(blobs, name) == b"".join(chunks)


async def test_a_large_blob_is_read_in_chunks(blobs: BlobStore) -> None:
    name, piece, largest, total = f"{new_id()}/payload", bytes(range(256)) * 4096, 0, 0
    await blobs.put(name, stream(*[piece] * 7))
    async for chunk in blobs.read(name):
        largest, total = max(largest, len(chunk)), total + len(chunk)
    assert total == 7 * len(piece)
    assert largest <= len(piece)


async def test_blobs_are_independent(blobs: BlobStore) -> None:
    first, second = new_id(), new_id()
    names = [f"{first}/payload", f"{first}/output", f"{second}/payload", f"{second}/output"]
    for name in names:
        await blobs.put(name, stream(name.encode()))
    await blobs.delete(names[0])
    for name in names[1:]:
        assert await content(blobs, name) == name.encode()


async def test_a_blob_is_replaced_as_a_whole(blobs: BlobStore) -> None:
    name = f"{new_id()}/payload"
    await blobs.put(name, stream(b"the first, the longer one"))
    await blobs.put(name, stream(b"second"))
    assert await content(blobs, name) == b"second"


async def test_a_missing_blob_is_named(blobs: BlobStore) -> None:
    name = f"{new_id()}/payload"
    with pytest.raises(Unavailable, match="payload"):
        await content(blobs, name)
    await blobs.put(name, stream(b"x"))
    await blobs.delete(name)
    await blobs.delete(name)
    with pytest.raises(Unavailable, match="payload"):
        await content(blobs, name)


class SourceBroke(OSError):
    """An error of the source of an upload, such as a broken connection. The store must not translate it."""


async def test_a_failing_source_leaves_nothing(blobs: BlobStore) -> None:
    async def breaking() -> AsyncIterator[bytes]:
        yield b"x" * 100_000
        raise SourceBroke

    name = f"{new_id()}/payload"
    with pytest.raises(SourceBroke):
        await blobs.put(name, breaking())
    with pytest.raises(Unavailable):
        await content(blobs, name)


async def test_a_cancelled_put_leaves_the_old_blob(blobs: BlobStore) -> None:
    name = f"{new_id()}/payload"
    await blobs.put(name, stream(b"old"))

    async def endless() -> AsyncIterator[bytes]:
        yield b"x" * 100_000
        putting.cancel_scope.cancel()
        await anyio.sleep_forever()
        yield b"never"

    async with anyio.create_task_group() as putting:
        putting.start_soon(blobs.put, name, endless(), name="a put to be cancelled")
    assert await content(blobs, name) == b"old"


INVALID_NAMES = [
    "",
    "payload",
    "/payload",
    "a/",
    "a/b/c",
    "../x/y",
    "../x",
    "a/..",
    "./a",
    "a/.b",
    "a/b\0",
    "a/b\n",
    "a b/c",
]


@pytest.mark.parametrize("name", INVALID_NAMES)
async def test_an_invalid_name_is_rejected(blobs: BlobStore, name: str) -> None:
    with pytest.raises(ValueError, match="is not"):
        await blobs.put(name, stream(b"x"))
    with pytest.raises(ValueError, match="is not"):
        await content(blobs, name)
    with pytest.raises(ValueError, match="is not"):
        await blobs.delete(name)
