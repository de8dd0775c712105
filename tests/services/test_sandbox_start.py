"""Test that a sandbox that does not start blames its image only if no other one has started in it."""

from typing import Any

import pytest
from attrs import define

from pyexec.errors import EngineError, ImageUnavailable
from pyexec.guest import wire
from pyexec.metrics import NOOP_METER
from pyexec.ports import ContainerSpec
from pyexec.sandbox.pool.starter import Starter
from tests.services.containers import document
from tests.services.pool_kinds import image_of, kind_of, spec_of


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
