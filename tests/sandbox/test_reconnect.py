"""The connection to a sandbox, without Docker: an engine that accepts connections which fail at once."""

import anyio
import pytest
from attrs import define

from pyexec.errors import EngineError
from pyexec.sandbox import frame_stream
from pyexec.sandbox.sandbox import Sandbox


@define
class FailingContainer:
    """A container that nothing can be read from."""

    id: str = "c0ffee"
    diagnostics: str = ""

    async def read(self) -> bytes:
        raise EngineError("the log cannot be read")

    async def detach(self) -> None:
        return


@define
class AcceptingEngine:
    """An engine that accepts every connection."""

    follows: int = 0

    async def follow(self, container_id: str) -> FailingContainer:
        self.follows += 1
        return FailingContainer(container_id)


async def test_connections_that_fail_at_once_are_not_made_in_a_busy_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(frame_stream, "RETRY_SECONDS", 0.1)
    engine = AcceptingEngine()
    sandbox = Sandbox(engine, FailingContainer())  # type: ignore[arg-type]
    with anyio.move_on_after(1):
        async for _ in sandbox.frames():
            pass
    assert 2 <= engine.follows <= 12
