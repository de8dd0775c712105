"""Test how long a supervisor may take for an archive: one that a caller has replaced must not hold a slot for hours."""

import asyncio
from typing import Any

import anyio
import pytest
from attrs import define

from pyexec.errors import SandboxStalled, Unavailable
from pyexec.guest import wire
from pyexec.sandbox.protocol import ProgramPlan
from pyexec.sandbox.sandbox import FRAME_BYTES, UNPACK_BYTES_PER_SECOND_MIN, UNPACK_SECONDS, Sandbox
from tests.services.virtual_time import VirtualLoop

UNPACKED = wire.HEADER.pack(wire.UNPACKED, 0) + b"\n"
FRAMES = 4


@define
class SlowContainer:
    """A container that takes some seconds to read each frame, and then some to report the archive as unpacked."""

    seconds_per_write: float
    seconds_until_unpacked: float
    id: str = "slow"
    unpacked_at: float = 0.0

    async def write(self, data: bytes) -> None:
        await anyio.sleep(self.seconds_per_write)
        self.unpacked_at = anyio.current_time() + self.seconds_until_unpacked

    async def read(self) -> bytes:
        await anyio.sleep_until(self.unpacked_at)
        return UNPACKED


@define
class Engine:
    """An engine that responds to checks, or does not."""

    responds: bool = True

    async def check(self) -> None:
        if not self.responds:
            raise Unavailable("the engine does not respond")


class RecoveringEngine(Engine):
    """An engine that lets one check time out, and then responds."""

    async def check(self) -> None:
        if self.responds:
            self.responds = False
            raise Unavailable("the engine does not respond") from TimeoutError()


async def seconds_to_unpack(container: Any, engine: Any, pause: float = 0.0, archives: int = 1) -> float:
    """Unpack archives of `FRAMES` frames in one sandbox; pause before each frame as a slow client does."""
    sandbox = Sandbox(engine, container)
    started = anyio.current_time()
    for _ in range(archives):
        for _ in range(FRAMES):
            await anyio.sleep(pause)
            await sandbox.send_archive(bytes(FRAME_BYTES))
        await sandbox.unpack()
    return anyio.current_time() - started


def run(*arguments: Any, **options: Any) -> float:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(seconds_to_unpack(*arguments, **options))


@pytest.mark.parametrize(("per_write", "at_end"), [(UNPACK_SECONDS / FRAMES + 1, 0), (0, 1e9), (1e9, 0)])
def test_a_supervisor_that_takes_too_long_is_given_up(per_write: float, at_end: float) -> None:
    with pytest.raises(SandboxStalled, match="did not unpack the archive within"):
        run(SlowContainer(per_write, at_end), Engine())


def test_a_silent_engine_is_reported_as_the_cause() -> None:
    for container in (SlowContainer(1e9, 0), SlowContainer(0, 1e9)):
        with pytest.raises(Unavailable, match="the engine"):
            run(container, Engine(responds=False))


def test_an_engine_that_was_silent_for_a_while_is_reported_as_the_cause() -> None:
    """The supervisor has had only a part of its time, and the run is repeated."""
    with pytest.raises(Unavailable, match="the engine does not respond"):
        run(SlowContainer(0, UNPACK_SECONDS - 1), RecoveringEngine())


def test_a_slow_client_costs_the_supervisor_no_time() -> None:
    seconds = run(SlowContainer(1, 1), Engine(), pause=10 * UNPACK_SECONDS)
    assert seconds == pytest.approx(FRAMES * (10 * UNPACK_SECONDS + 1) + 1)


def test_each_archive_has_its_own_time() -> None:
    seconds = run(SlowContainer(0, UNPACK_SECONDS - 1), Engine(), archives=3)
    assert seconds == pytest.approx(3 * (UNPACK_SECONDS - 1))


def test_a_large_archive_has_more_time() -> None:
    more = FRAMES * FRAME_BYTES / UNPACK_BYTES_PER_SECOND_MIN / 2
    assert run(SlowContainer(0, UNPACK_SECONDS + more), Engine()) == pytest.approx(UNPACK_SECONDS + more)


class DeafContainer(SlowContainer):
    """A container that reads nothing, so that the engine's client gives up the write."""

    async def write(self, data: bytes) -> None:
        await anyio.sleep(self.seconds_per_write)
        raise Unavailable("Docker does not answer") from TimeoutError()


async def send_plan(container: Any, engine: Any) -> None:
    plan = ProgramPlan(entrypoint="main.py", args=(), env=(), evaluate=False)
    await Sandbox(engine, container).send_plan(plan, b"input")


def test_a_write_that_times_out_while_the_engine_responds_is_the_supervisors_fault() -> None:
    """Each further attempt would hold the slot as long again."""
    for transfer, what in ((seconds_to_unpack, "archive"), (send_plan, "standard input")):
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            with pytest.raises(SandboxStalled, match=f"did not read its {what} in time"):
                runner.run(transfer(DeafContainer(7, 0), Engine()))
            with pytest.raises(Unavailable, match="the engine does not respond"):
                runner.run(transfer(DeafContainer(7, 0), Engine(responds=False)))
