"""Blob stores: a blob is stored completely or not at all."""

import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import anyio
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyexec.adapters.blobs.file_store import FileBlobs
from pyexec.adapters.blobs.object_store import ObjectBlobs
from pyexec.errors import Unavailable
from pyexec.ports import BlobStore
from tests.contract.blobs import SourceBroke, content, stream
from tests.events import new_id
from tests.support.cases import examples


@settings(
    max_examples=examples(30), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
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


@pytest.mark.full
async def test_a_slow_reader_of_objects_gets_everything(
    aiohttp_server: Callable[..., Awaitable[TestServer]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default, obstore ends a request after 30 s."""
    size = 100 * 1024 * 1024

    async def answer(_: web.Request) -> web.Response:
        headers = {"ETag": '"x"', "Last-Modified": "Sat, 28 Nov 2026 10:00:00 GMT"}
        return web.Response(body=bytes(size), headers=headers)

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    server = await aiohttp_server(app)
    monkeypatch.setenv("AWS_ENDPOINT", str(server.make_url("/")).rstrip("/"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.setenv(name, "any")
    blobs, read = ObjectBlobs.at("s3://bucket", "deployment-1"), 0
    async for chunk in blobs.read(f"{new_id()}/payload"):
        read += len(chunk)
        await anyio.sleep(35 * len(chunk) / size)
    assert read == size


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


SIZES = pytest.mark.parametrize("size", [100_000, 2 * 1024 * 1024])
"""Sizes of pieces that are stored in one request, and in several ones."""


@SIZES
async def test_a_failing_source_leaves_nothing(blobs: BlobStore, size: int) -> None:
    async def breaking() -> AsyncIterator[bytes]:
        yield b"x" * size
        raise SourceBroke

    name = f"{new_id()}/payload"
    with pytest.raises(SourceBroke):
        await blobs.put(name, breaking())
    with pytest.raises(Unavailable):
        await content(blobs, name)


@SIZES
async def test_a_cancelled_put_leaves_the_old_blob(blobs: BlobStore, size: int) -> None:
    name = f"{new_id()}/payload"
    await blobs.put(name, stream(b"old"))

    async def endless() -> AsyncIterator[bytes]:
        yield b"x" * size
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


OLD = time.time() - 2 * 86400


async def never(_: str) -> bool:
    """Say that no execution exists, so that a sweep deletes everything that it may delete."""
    return False


def make_old(directory: Path) -> None:
    for path in directory.rglob("*"):
        os.utime(path, (OLD, OLD), follow_symlinks=False)


STRANGERS = (
    "backups/db.dump",
    "db.dump",
    "another-deployment/exe_00000000000070008000000000000000/payload",
    "exe_00000000000070008000000000000000/payload",
    "deployment-1/notes",
    "deployment-1/backups/db.dump",
    "deployment-1/exe_short/payload",
    "deployment-1/exe_00000000000070008000000000000000/a/b",
    "deployment-1/exe_00000000000070008000000000000000/a b",
    "deployment-10/exe_00000000000070008000000000000000/payload",
)


async def test_a_sweep_of_objects_deletes_only_its_own(tmp_path: Path) -> None:
    blobs = ObjectBlobs.at(f"file://{tmp_path}", "deployment-1")
    orphan, accepted = f"{new_id()}/payload", f"{new_id()}/payload"
    for name in (orphan, accepted):
        await blobs.put(name, stream(b"x"))
    for name in STRANGERS:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"theirs")
    make_old(tmp_path)

    async def exists(execution_id: str) -> bool:
        return accepted.startswith(execution_id)

    await blobs.sweep(frozenset(), exists)
    assert [name for name in STRANGERS if not (tmp_path / name).exists()] == []
    assert await content(blobs, accepted) == b"x"
    with pytest.raises(Unavailable):
        await content(blobs, orphan)


async def test_deployments_share_a_store_of_objects(tmp_path: Path) -> None:
    first, second = (ObjectBlobs.at(f"file://{tmp_path}", f"deployment-{number}") for number in (1, 2))
    name = f"{new_id()}/payload"
    await first.put(name, stream(b"x"))
    make_old(tmp_path)
    await second.sweep(frozenset(), never)
    await second.delete(name)
    assert await content(first, name) == b"x"


async def test_a_sweep_of_files_deletes_only_its_own(tmp_path: Path) -> None:
    blobs = await FileBlobs.open(tmp_path)
    orphan = f"{new_id()}/payload"
    await blobs.put(orphan, stream(b"x"))
    strangers = ["db.dump", "a+b", "a+b+c", "+", "exe_short+payload", f"{new_id()}+a+b", f"{new_id()}+a b"]
    for name in strangers:
        (tmp_path / name).write_bytes(b"theirs")
    strangers += [f"{new_id()}+folder", f"{new_id()}+link"]
    (tmp_path / strangers[-2]).mkdir()
    (tmp_path / strangers[-1]).symlink_to(tmp_path / "nowhere")
    make_old(tmp_path)
    await blobs.sweep(frozenset(), never)
    assert set(os.listdir(tmp_path)) == set(strangers)
