"""Test that a sandbox that sends many small frames or much JSON delays no other task, and is slowed down."""

import asyncio
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from pyexec.guest import wire
from pyexec.sandbox.frame_stream import FRAME_BURST, FRAMES_PER_SECOND, JSON_FRAME_BYTES, LARGE_FRAME_BYTES
from pyexec.sandbox.sandbox import Sandbox
from tests.services.virtual_time import VirtualLoop

SMALL = wire.HEADER.pack(wire.STDOUT, 4) + b"eA==\n"
LARGE = wire.HEADER.pack(wire.STDOUT, LARGE_FRAME_BYTES) + b"eHh4" * (LARGE_FRAME_BYTES // 4) + b"\n"
JSON = (
    wire.HEADER.pack(wire.STARTED, LARGE_FRAME_BYTES) + b'{"x": "' + b"x" * (LARGE_FRAME_BYTES - 9) + b'"}\n'
)
IN_ONE_READ = 1000
TURNS = 3


class Flood:
    """A container that always has more frames to read."""

    id = "flood"

    def __init__(self, frame: bytes) -> None:
        self.data = frame * IN_ONE_READ

    async def read(self) -> bytes:
        return self.data


async def seconds_for(frame: bytes, count: int) -> float:
    """Return how long it takes to receive this many frames. Another task must run between the reads."""
    container: Any = Flood(frame)
    engine: Any = None
    sandbox = Sandbox(engine, container)
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        for _ in range(TURNS):
            await anyio.lowlevel.checkpoint()
            turns += 1

    started = anyio.current_time()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(take_turns, name="take turns")
        received = 0
        async for _ in sandbox.frames():
            received += 1
            if received == count:
                break
        assert turns == TURNS
        return anyio.current_time() - started
    raise AssertionError("the task group suppresses no exception")


@pytest.mark.parametrize(
    ("frame", "count", "seconds"),
    [
        (SMALL, FRAME_BURST // 2, 0.0),
        (SMALL, FRAME_BURST + 10 * FRAMES_PER_SECOND, 10.0),
        (LARGE, FRAME_BURST + FRAMES_PER_SECOND, 0.0),
        (JSON, 4000, (4000 * LARGE_FRAME_BYTES / JSON_FRAME_BYTES - FRAME_BURST) / FRAMES_PER_SECOND),
    ],
)
def test_small_frames_and_json_are_limited(frame: bytes, count: int, seconds: float) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert runner.run(seconds_for(frame, count)) == pytest.approx(seconds, rel=0.01)
