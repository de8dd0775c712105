"""The adoption of running programs whose replica is gone."""

from itertools import count

import pytest

from pyexec.domain.events import Adopted, Event, Failed, Finished, Running
from pyexec.errors import ContainerGone, EngineError
from pyexec.services.peer_monitor import MISSES, PROBE_INTERVAL_SECONDS
from tests.services.callers import GOOD, Request
from tests.services.process_engine import ProcessContainer, ProcessEngine
from tests.services.session_life import ENGINE, SessionLife
from tests.services.session_replicas import Scene, checked_scene


def submit(scene: Scene, life: SessionLife) -> None:
    request = Request("1", sync=False, key=None)
    life.requests.append(request)
    scene.call(lambda: scene.world.tasks.start_soon(life.request, request, GOOD), 40)


def events_after_crash(
    scene: Scene, patch: pytest.MonkeyPatch, failures: int, error: type[EngineError]
) -> list[type[Event]]:
    """Crash the owner of a program while the engine fails `failures` times. Return the types of the later events."""
    first, _ = scene.start(), scene.start()
    submit(scene, first)
    follow, calls = ProcessEngine.follow, count(1)

    async def fail_at_first(engine: ProcessEngine, container_id: str) -> ProcessContainer:
        if next(calls) <= failures:
            raise error("the engine is restarting")
        return await follow(engine, container_id)

    patch.setattr(ProcessEngine, "follow", fail_at_first)
    scene.lose(first)
    scene.wait(25)
    for box in scene.world.engines[ENGINE].boxes.values():
        if box.running:
            scene.call(lambda box=box: box.exit(0), 40)  # type: ignore[misc]
    (log,) = scene.world.written.values()
    return [type(written.event) for written in log[2:]]


def test_a_program_is_adopted_before_the_consul_session_of_its_replica_expires() -> None:
    with checked_scene() as scene:
        first, second = scene.start(), scene.start()
        submit(scene, first)
        scene.call(first.crash)
        scene.wait(MISSES * PROBE_INTERVAL_SECONDS + 0.5)
        (log,) = scene.world.written.values()
        assert (log[-1].writer, type(log[-1].event)) == (second.name, Adopted)


def test_a_program_is_adopted_although_the_engine_does_not_show_it_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with checked_scene() as scene:
        assert events_after_crash(scene, monkeypatch, 5, EngineError) == [Running, Adopted, Finished]


def test_a_program_that_is_gone_is_not_looked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with checked_scene() as scene:
        assert events_after_crash(scene, monkeypatch, 1, ContainerGone) == [Running, Failed]
