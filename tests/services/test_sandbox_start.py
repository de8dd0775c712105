"""Test that a sandbox that does not start blames its image only if no other one has started in it, and that it gets
more time if it has few processors."""

import asyncio
from typing import Any

import anyio
import pytest
from attrs import define, evolve

from pyexec.errors import EngineError, ImageUnavailable
from pyexec.guest import wire
from pyexec.metrics import NOOP_METER
from pyexec.ports import ContainerSpec
from pyexec.sandbox.pool.starter import Starter
from pyexec.sandbox.sandbox import Sandbox
from tests.services.containers import document
from tests.services.pool_kinds import image_of, kind_of, spec_of
from tests.services.virtual_time import VirtualLoop


@define
class Container:
    """A container that says `output`, and then ends."""

    output: bytes
    id: str = "container"
    diagnostics: str = ""

    async def read(self) -> bytes | None:
        output, self.output = self.output, b""
        return output or None

    async def remove(self) -> None:
        pass


@define
class Engine:
    """An engine whose containers are ready, unless it is `ill`."""

    ill: bool = False

    async def start(self, spec: ContainerSpec) -> Container:
        return Container(b"" if self.ill else document(wire.READY, python="3.12", memory_bytes=0))


async def test_only_an_image_in_which_no_sandbox_has_started_is_to_blame() -> None:
    engine: Any = Engine(ill=True)
    starter = Starter(engine, image_of, spec_of, NOOP_METER)
    with pytest.raises(ImageUnavailable, match="has no Python"):
        await starter.start(kind_of(64))
    engine.ill = False
    assert (await starter.start(kind_of(64))).python == "3.12"
    engine.ill = True
    with pytest.raises(EngineError, match="although others of its image did"):
        await starter.start(kind_of(64))
    with pytest.raises(ImageUnavailable, match="has no Python"):
        await starter.start(kind_of(32))  # perhaps not enough for Python


class SlowEngine:
    """An engine whose containers are ready after 100 seconds."""

    async def start(self, spec: ContainerSpec) -> Container:
        return SlowContainer(document(wire.READY, python="3.12", memory_bytes=0))


class SlowContainer(Container):
    async def read(self) -> bytes | None:
        await anyio.sleep(100)
        return await super().read()


def start_slowly(cpus: float | None) -> str:
    engine: Any = SlowEngine()
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(Sandbox.start(engine, evolve(spec_of(kind_of(64)), cpus=cpus))).python


@pytest.mark.parametrize(
    ("cpus", "said"),
    [
        (None, r"within 30 s$"),
        (2, r"within 30 s with config\.cpus 2$"),
        (0.05, r"within 60 s with .* 0\.05$"),
    ],
)
def test_the_error_of_a_start_that_takes_too_long_names_its_processors(cpus: float | None, said: str) -> None:
    with pytest.raises(ImageUnavailable, match=said):
        start_slowly(cpus)


def test_a_start_with_few_processors_has_more_time() -> None:
    assert start_slowly(0.01) == "3.12"
