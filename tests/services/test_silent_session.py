"""Test that file transfers of a session end although its supervisor, which a caller may have replaced, is silent."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing

import anyio
import pytest

from pyexec.domain.output_files import FileLimits
from pyexec.errors import Unavailable
from pyexec.sandbox.session_transfers import FRAME_SECONDS, TRANSFERS_MAX, SessionTransfers
from tests.services.virtual_time import VirtualLoop

LIMITS = FileLimits(bytes_max=0)


async def write_nothing(*_: object) -> None:
    """Take a line for the supervisor, which never answers."""


async def chunks() -> AsyncIterator[bytes]:
    yield b"x"


async def read(transfers: SessionTransfers) -> None:
    async with aclosing(transfers.read(("*",), LIMITS, only_names=True)) as frames:
        async for _ in frames:
            pass


@pytest.mark.parametrize(
    "transfer",
    [read, lambda transfers: transfers.write("a", chunks()), lambda transfers: transfers.delete("a")],
    ids=["read", "write", "delete"],
)
def test_transfers_end_without_an_answer(transfer: Callable[[SessionTransfers], Awaitable[None]]) -> None:
    """Those beyond `TRANSFERS_MAX` wait for the end of another one."""

    async def run() -> float:
        transfers = SessionTransfers(write_nothing)
        begun = anyio.current_time()

        async def fail() -> None:
            with pytest.raises(Unavailable, match="has sent nothing for"):
                await transfer(transfers)

        async with anyio.create_task_group() as tasks:
            for number in range(TRANSFERS_MAX + 1):
                tasks.start_soon(fail, name=f"transfer {number}")
        return anyio.current_time() - begun

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert runner.run(run()) == pytest.approx(2 * FRAME_SECONDS)
