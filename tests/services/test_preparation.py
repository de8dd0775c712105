"""Test that a failed clean-up of a sandbox hides neither a cancellation nor the error that led to it."""

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from pyexec.domain.spec import Spec
from pyexec.errors import EngineError, SandboxBroken, Unavailable
from pyexec.services.preparation import Preparation


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
