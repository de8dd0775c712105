"""Test that a failed clean-up of a sandbox hides neither a cancellation nor the error that led to it, and that a slow
upload does not hold its slot forever."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from pyexec.domain.spec import Spec
from pyexec.errors import EngineError, InvalidRequest, SandboxBroken, Unavailable
from pyexec.services.preparation import Preparation
from tests.services.virtual_time import VirtualLoop


class LostSandbox:
    """A sandbox whose engine has gone: it takes no archive, and cannot be removed."""

    container_id = "0123456789ab"
    python = "3.12.1"

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error

    async def send_archive(self, data: bytes) -> None:
        if self._error is not None:
            raise self._error
        await anyio.sleep_forever()

    async def remove(self) -> None:
        raise EngineError("the engine does not answer")


class OneSandboxPool:
    """A pool that has this one sandbox."""

    def __init__(self, sandbox: LostSandbox) -> None:
        self._sandbox = sandbox

    async def take(self, kind: object, tenant: str) -> LostSandbox:
        return self._sandbox

    async def give_back(self, sandbox: LostSandbox, *, reusable: bool) -> None:
        await sandbox.remove()


class OneChunkArchive:
    """An archive of one chunk, which is not checked."""

    async def chunks(self) -> AsyncIterator[bytes]:
        yield b"data"


UNUSED: Any = None
ARCHIVE: Any = OneChunkArchive()
SPEC = Spec(docker_image="image", limits=UNUSED)


def preparation(sandbox: LostSandbox) -> Preparation:
    pool: Any = OneSandboxPool(sandbox)
    return Preparation(replica="rep_1", log=UNUSED, blobs=UNUSED, pool=pool, environments=UNUSED)


async def test_a_failed_removal_does_not_replace_a_cancellation() -> None:
    with anyio.move_on_after(0.01) as scope:
        await preparation(LostSandbox()).sandbox_for_upload(UNUSED, ARCHIVE, SPEC)
    assert scope.cancelled_caught


async def test_a_failed_removal_does_not_replace_the_error_that_led_to_it() -> None:
    with pytest.raises(Unavailable, match="no frame"):
        await preparation(LostSandbox(SandboxBroken("no frame"))).sandbox_for_upload(UNUSED, ARCHIVE, SPEC)


class SlowSandbox(LostSandbox):
    """A sandbox that takes 100 seconds for each piece of an archive."""

    async def send_archive(self, data: bytes) -> None:
        await anyio.sleep(100)

    async def unpack(self) -> None: ...

    async def remove(self) -> None: ...


class SlowArchive:
    """An archive that arrives in pieces of this size, with this pause before each."""

    def __init__(self, pieces: int, size: int, pause: float) -> None:
        self.pieces, self.size, self.pause = pieces, size, pause

    async def chunks(self) -> AsyncIterator[bytes]:
        for _ in range(self.pieces):
            await anyio.sleep(self.pause)
            yield bytes(self.size)


def upload(archive: Any) -> float:
    """Upload an archive to a sandbox, and return how long that took."""

    async def run() -> float:
        await preparation(SlowSandbox()).sandbox_for_upload(UNUSED, archive, SPEC)
        return anyio.current_time()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(run())


def test_an_upload_that_trickles_is_rejected() -> None:
    with pytest.raises(InvalidRequest, match=r"5 bytes in 75 s; .* 16 KiB/s .*exec/async") as found:
        upload(SlowArchive(100, 1, 15))
    assert found.value.code == "upload_too_slow"


def test_an_upload_at_the_minimum_speed_is_accepted_however_slow_the_sandbox() -> None:
    assert upload(SlowArchive(100, 16384, 1)) == 100 * 101
    assert upload(SlowArchive(5, 1, 12)) == 5 * 112
