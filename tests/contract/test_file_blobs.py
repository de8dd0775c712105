"""The file blobs only: failed writes, leftovers of a crash, the sweep."""

import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from pyexec.adapters.blobs.file_store import FileBlobs
from pyexec.errors import Unavailable
from tests.contract.blobs import SourceBroke, content, stream
from tests.events import new_id
from tests.support.paths import ROOT


def contents(directory: Path) -> list[bytes]:
    return [file.read_bytes() for file in directory.iterdir()]


async def test_a_put_that_fails_leaves_no_file(tmp_path: Path) -> None:
    async def breaking() -> AsyncIterator[bytes]:
        yield b"x" * 100_000
        raise SourceBroke

    blobs = await FileBlobs.open(tmp_path)
    with pytest.raises(SourceBroke):
        await blobs.put(f"{new_id()}/payload", breaking())
    assert contents(tmp_path) == []


async def test_partial_files_of_a_crash_are_deleted_at_open(tmp_path: Path) -> None:
    script = """
import os, signal, sys, anyio, pathlib
from pyexec.adapters.blobs.file_store import FileBlobs
async def chunks():
    yield b"x" * 100_000
    os.kill(os.getpid(), signal.SIGKILL)
async def put():
    await (await FileBlobs.open(pathlib.Path(sys.argv[1]))).put("exe/payload", chunks())
anyio.run(put)
"""
    blobs = await FileBlobs.open(tmp_path)
    await blobs.put("exe/output", stream(b"whole"))
    await anyio.run_process([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, check=False)
    assert len(contents(tmp_path)) == 2
    await FileBlobs.open(tmp_path)
    assert contents(tmp_path) == [b"whole"]
    assert b"".join([chunk async for chunk in blobs.read("exe/output")]) == b"whole"


async def test_a_write_failure_is_unavailable(tmp_path: Path) -> None:
    blobs = await FileBlobs.open(tmp_path / "blobs")
    (tmp_path / "blobs").rmdir()
    with pytest.raises(Unavailable, match="cannot write exe/payload: No such file or directory"):
        await blobs.put("exe/payload", stream(b"x"))


async def test_orphaned_blobs_are_swept_after_a_day(tmp_path: Path) -> None:
    blobs = await FileBlobs.open(tmp_path / "blobs")
    forgotten, fresh, accepted = (f"{new_id()}/payload" for _ in range(3))
    for name in (forgotten, fresh, accepted):
        await blobs.put(name, stream(b"x"))
    two_days_ago = time.time() - 2 * 86400
    for name in (forgotten, accepted):
        os.utime(tmp_path / "blobs" / name.replace("/", "+"), (two_days_ago, two_days_ago))

    async def exists(execution_id: str) -> bool:
        return accepted.startswith(execution_id)

    await blobs.sweep(frozenset(), exists)
    assert await content(blobs, fresh) == b"x"
    assert await content(blobs, accepted) == b"x"
    with pytest.raises(Unavailable):
        await content(blobs, forgotten)
