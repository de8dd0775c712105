"""A simulated replica with interpreter sessions, whose sandboxes are doubles."""

import time
from typing import Any

import pytest
from attrs import evolve

from pyexec.services import clock
from pyexec.services.sessions import opening, recovery
from pyexec.services.sessions.recovery import SessionRecovery
from pyexec.services.sessions.sessions import Sessions
from pyexec.services.slots import Slots
from pyexec.wiring import replica as wiring
from pyexec.wiring.sessions import build_sessions
from tests.services.images import image
from tests.services.replicas import Life
from tests.services.scripted_sandbox import ScriptedSandbox
from tests.services.session_pool import SessionPool
from tests.services.world import World

ENGINE = "engine-1"
SESSIONS_MAX = 3


class ReadyEnvironments:
    async def find(self, _spec: object) -> object:
        return image("environment")


class ReadyPreparation:
    """Finds every environment."""

    environments = ReadyEnvironments()


class StepClock:
    """The clock for new ids. A step of it is what a replica with another clock, or a corrected clock, shows."""

    seconds = 0.0

    def time_ns(self) -> int:
        return time.time_ns() + round(self.seconds * 1e9)


ID_CLOCK = StepClock()


def _build(
    shared: Any, engine: Any, _pool: Any, _preparation: Any, completion: Any, runner: Any
) -> SessionRecovery:
    pool: Any = SessionPool(engine._engine, engine._process)
    preparation: Any = ReadyPreparation()
    return build_sessions(shared, engine, pool, preparation, completion, runner)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the sandboxes of sessions and the clock with doubles."""
    ID_CLOCK.seconds = 0.0
    monkeypatch.setattr(clock, "time", ID_CLOCK)
    monkeypatch.setattr(opening, "SessionSandbox", ScriptedSandbox)
    monkeypatch.setattr(recovery, "SessionSandbox", ScriptedSandbox)
    monkeypatch.setattr(wiring, "build_sessions", _build)


class SessionLife(Life):
    """A replica with sessions."""

    def __init__(self, world: World, name: str, engine: str = ENGINE, *, single: bool = False) -> None:
        super().__init__(world, name, engine, local_claim=True)
        self._settings = evolve(
            self._settings,
            warm_pool=0,
            max_sessions=SESSIONS_MAX,
            **({"consul_addr": None} if single else {}),
        )

    @property
    def sessions(self) -> Sessions:
        return self.context().sessions

    @property
    def free_mb(self) -> int:
        """The memory that no sandbox has."""
        return -self.slots.memory_mb.used

    @property
    def slots(self) -> Slots:
        assert self.replica is not None
        return self.replica.runner._slots
