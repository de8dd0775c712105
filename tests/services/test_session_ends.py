"""How interpreter sessions and interpreters end: close, idle, lifetime, drain, a lost container, a restart."""

from collections.abc import AsyncIterator, Iterator

import pytest

from pyexec.domain.events import Running
from pyexec.errors import SessionEnded, ShuttingDown
from pyexec.ports import Caller
from tests.services.session_life import scripted
from tests.services.session_replicas import Scene, checked_scene

__all__ = ["scripted"]

CLOSED = ("failed", "session_closed")
LOST = ("failed", "lost")


@pytest.fixture
def scene(scripted: None) -> Iterator[Scene]:
    with checked_scene() as scene:
        yield scene


def test_close_ends_all_cells_and_gives_the_memory_back_once(scene: Scene) -> None:
    life = scene.start()
    before = life.free_mb
    session = scene.open(life)
    assert life.free_mb < before
    ran, waited = scene.send(life, session), scene.send(life, session)
    scene.close(life, session)
    scene.close(life, session)
    assert [scene.end(cell) for cell in (ran, waited)] == [CLOSED, CLOSED]
    assert scene.session(session).close_reason == "deleted"
    assert (life.free_mb, scene.boxes, life.sessions.open_count) == (before, [], 0)
    assert isinstance(scene.send(life, session).error, SessionEnded)


def test_an_idle_session_is_closed_but_not_while_a_cell_runs(scene: Scene) -> None:
    life = scene.start()
    session = scene.open(life, idle_timeout_seconds=100)
    scene.wait(99)
    scene.send(life, session)
    scene.wait(150)
    assert scene.session(session).is_open
    scene.finish()
    check_idle_time_begins(scene, session)


def test_a_session_is_not_idle_during_a_transfer_of_a_file(scene: Scene) -> None:
    life = scene.start()
    session = scene.open(life, idle_timeout_seconds=100)
    body_ended = scene.loop.create_future()

    async def body() -> AsyncIterator[bytes]:
        yield b"1"
        await body_ended

    async def upload() -> None:
        await life.sessions.write_file(session, "f", body(), Caller())

    scene.spawn(upload, "upload", 30)
    scene.wait(150)
    assert scene.session(session).is_open
    scene.call(lambda: body_ended.set_result(None), 30)
    check_idle_time_begins(scene, session)


def check_idle_time_begins(scene: Scene, session: str) -> None:
    """Check that a session is closed 100 s from now."""
    scene.wait(99)
    assert scene.session(session).is_open
    scene.wait(2)
    assert scene.session(session).close_reason == "idle"


def test_only_an_idle_session_has_a_time_at_which_it_expires(scene: Scene) -> None:
    life = scene.start()
    session = scene.open(life, idle_timeout_seconds=100)
    assert scene.do(life.sessions.get(session, Caller())).expires_at is not None
    scene.send(life, session)
    assert scene.do(life.sessions.get(session, Caller())).expires_at is None
    scene.finish()
    assert scene.do(life.sessions.get(session, Caller())).expires_at is not None


def test_a_session_is_closed_at_the_end_of_its_lifetime(scene: Scene) -> None:
    life = scene.start()
    session = scene.open(life, lifetime_seconds=100)
    cell = scene.send(life, session)
    scene.wait(101)
    assert scene.session(session).close_reason == "lifetime"
    assert scene.end(cell) == CLOSED


def test_a_drain_with_consul_waits_for_the_running_cell_and_leaves_the_session_open(scene: Scene) -> None:
    first, second = scene.start(), scene.start()
    session = scene.open(first)
    ran, waited = (scene.send(first, session) for _ in range(2))
    scene.call(first.stop.requested.set, 20)
    scene.finish()
    scene.wait(1)
    assert scene.end(ran) == ("completed", None)
    assert first.ended.is_set()
    scene.wait(10)
    assert scene.session(session).owner == second.name
    written = scene.world.written[waited.execution_id or ""]
    assert [each.writer for each in written if isinstance(each.event, Running)] == [second.name]
    scene.finish()
    assert scene.end(waited) == ("completed", None)


def test_a_drain_without_consul_closes_the_sessions(scene: Scene) -> None:
    life = scene.start(single=True)
    session = scene.open(life)
    ran, waited = (scene.send(life, session) for _ in range(2))
    scene.call(life.stop.requested.set, 20)
    scene.finish()
    scene.wait(1)
    assert scene.end(ran) == ("completed", None)
    assert scene.end(waited) == CLOSED
    assert (scene.session(session).close_reason, scene.boxes) == ("shutdown", [])


def test_a_session_that_opens_too_late_for_a_shutdown_is_closed(scene: Scene) -> None:
    life = scene.start()
    before = life.free_mb
    life.sessions._tasks = None  # as after the drain, while the last responses are sent
    with pytest.raises(ShuttingDown):
        scene.open(life)
    sessions = scene.do(scene.world.log.sessions.all()).lengths
    (closed,) = [scene.session(name) for name in sessions]
    assert closed.close_reason == "shutdown"
    assert (scene.boxes, life.free_mb, life.sessions._reserved) == ([], before, [])


def test_a_session_whose_container_is_gone_is_lost_and_its_waiting_cells_never_start(scene: Scene) -> None:
    life = scene.start()
    before = life.free_mb
    session = scene.open(life)
    ran, waited = (scene.send(life, session) for _ in range(2))
    scene.call(scene.box().end, 60)
    assert (scene.end(ran), scene.end(waited)) == (LOST, CLOSED)
    assert scene.state(waited).started_at is None
    assert scene.session(session).close_reason == "lost"
    assert life.free_mb == before


def test_a_session_whose_sandbox_ran_out_of_memory_says_so(scene: Scene) -> None:
    life = scene.start()
    session = scene.open(life)
    cell, box = scene.send(life, session), scene.box()
    box.ran_out_of_memory = True
    scene.call(box.end, 60)
    assert scene.end(cell) == ("failed", "out_of_memory")
    assert scene.session(session).close_reason == "memory"


def test_a_restart_between_cells_is_recorded(scene: Scene) -> None:
    life = scene.start()
    session = scene.open(life)
    scene.call(scene.box().restart, 30)
    cell = scene.send(life, session)
    scene.call(lambda: scene.box().finish(137, "timeout", restarted=True), 40)
    assert scene.end(cell) == ("failed", "timeout")
    assert scene.session(session).restarts == 2


def test_a_restart_kills_the_running_cell_and_the_waiting_ones_run_afterwards(scene: Scene) -> None:
    life = scene.start()
    session = scene.open(life)
    killed, last = (scene.send(life, session) for _ in range(2))
    scene.do(life.sessions.restart(session, Caller()), 40)
    assert scene.end(killed) == ("killed", None)
    terminal = scene.state(killed).terminal
    assert terminal is not None
    assert terminal.interpreter_restarted
    scene.finish()
    assert scene.end(last) == ("completed", None)
    assert scene.session(session).restarts == 1
