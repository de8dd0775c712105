"""Interpreter sessions whose owner crashes, is suspended or loses answers of the log."""

from collections.abc import Iterator

import pytest

from pyexec.errors import Unavailable
from pyexec.guest.wire import LEASE_SECONDS
from pyexec.services.peer_monitor import MISSES, PROBE_INTERVAL_SECONDS
from pyexec.services.sessions.cells import INLINE_CODE_BYTES_MAX
from tests.services.session_life import ENGINE, ID_CLOCK, scripted
from tests.services.session_replicas import Scene, checked_scene

__all__ = ["scripted"]

LOST = ("failed", "lost")
CLOSED = ("failed", "session_closed")


@pytest.fixture
def scene(scripted: None) -> Iterator[Scene]:
    with checked_scene() as scene:
        yield scene


def test_a_running_cell_and_those_that_wait_go_on_after_a_crash(scene: Scene) -> None:
    first, second = scene.start(), scene.start()
    session = scene.open(first)
    cells = [scene.send(first, session) for _ in range(3)]
    scene.lose(first)
    scene.wait(10)
    assert scene.session(session).owner == second.name
    cells.append(scene.send(second, session))
    for number in range(4):
        scene.finish(number)
    assert [scene.end(cell)[0] for cell in cells] == ["completed"] * 4
    assert [cell.code for cell in scene.box().started] == [cell.code for cell in cells]


def test_cells_run_in_the_order_of_acceptance_whatever_the_clocks_of_their_owners_say(scene: Scene) -> None:
    """The clock of each owner is behind that of the one before."""
    first, second, third = scene.start(), scene.start(), scene.start()
    session = scene.open(first)
    owners, cells = {life.name: life for life in (first, second, third)}, []
    for hours in (2, 1, 0):
        ID_CLOCK.seconds = hours * 3600.0
        owner = owners[scene.session(session).owner or ""]
        for _ in range(2):
            cells.append(scene.send(owner, session))
            ID_CLOCK.seconds -= 60.0
        if hours:
            scene.lose(owner)
            scene.wait(10)
    for _ in cells:
        scene.finish()
    assert [scene.end(cell)[0] for cell in cells] == ["completed"] * 6
    assert [cell.code for cell in scene.box().started] == [cell.code for cell in cells]


def test_a_cell_that_ended_while_its_session_had_no_owner_has_its_own_result(scene: Scene) -> None:
    first, _ = scene.start(), scene.start()
    session = scene.open(first)
    cell = scene.send(first, session)
    scene.call(first.crash)
    scene.call(lambda: scene.box().print(b"hello"))
    scene.finish(7)
    scene.call(lambda: scene.world.expire(first.process))
    scene.wait(10)
    terminal = scene.state(cell).terminal
    assert terminal is not None
    assert getattr(terminal, "exit_code", None) == 7
    assert b"hello" in (terminal.output.inline or b"")
    assert scene.box().frames == []


def test_a_cell_whose_start_did_not_reach_the_sandbox_is_lost_and_never_starts(scene: Scene) -> None:
    first, second = scene.start(), scene.start()
    session = scene.open(first)
    cell = scene.send(first, session, passes=0)
    while not scene.world.written:
        scene.call(lambda: None)
    scene.lose(first)
    scene.wait(10)
    (execution_id,) = scene.world.written
    cell.execution_id = execution_id
    assert scene.end(cell) == LOST
    assert scene.box().started == []
    scene.send(second, session)
    assert len(scene.box().started) == 1


def test_a_waiting_cell_that_was_killed_is_killed_by_the_next_owner(scene: Scene) -> None:
    first, second = scene.start(), scene.start()
    session = scene.open(first)
    _, waits = (scene.send(first, session) for _ in range(2))
    scene.call(first.crash)
    scene.kill(second, waits)
    scene.call(lambda: scene.world.expire(first.process))
    scene.wait(10)
    assert scene.end(waits) == ("killed", None)


def test_an_owner_that_wakes_after_an_adoption_starts_nothing(scene: Scene) -> None:
    first, second = scene.start(), scene.start()
    before = first.free_mb
    session = scene.open(first)
    cells = [scene.send(first, session) for _ in range(2)]
    scene.call(first.process.hold)
    scene.call(lambda: scene.world.expire(first.process))
    scene.wait(10)
    scene.finish()
    late = scene.send(first, session)
    scene.call(first.process.resume, 40)
    scene.wait(20)
    scene.finish()
    assert [scene.end(cell)[0] for cell in cells] == ["completed"] * 2
    assert (first.free_mb, first.sessions.open_count) == (before, 0)
    assert late.done
    assert scene.session(session).owner == second.name
    codes = [cell.code for cell in scene.box().started]
    assert sorted(set(codes)) == sorted(codes)


def test_the_first_owner_adopts_its_session_again_if_the_adopter_crashes(scene: Scene) -> None:
    first, second = scene.start(), scene.start()
    session = scene.open(first)
    cells = [scene.send(first, session) for _ in range(2)]
    scene.call(first.process.hold)
    scene.call(lambda: scene.world.expire(first.process))
    scene.wait(10)
    assert scene.session(session).owner == second.name
    scene.lose(second)
    scene.call(first.process.resume, 40)
    scene.wait(10)
    assert scene.session(session).owner == first.name
    scene.finish()
    scene.finish()
    assert [scene.end(cell)[0] for cell in cells] == ["completed"] * 2


def test_a_session_whose_container_went_with_its_owner_is_lost(scene: Scene) -> None:
    first, second = scene.start(), scene.start()
    session = scene.open(first)
    ran, waits = (scene.send(first, session) for _ in range(2))
    scene.lose(first)
    scene.call(scene.box().end)
    scene.wait(10)
    assert scene.session(session).close_reason == "lost"
    assert (scene.end(ran), scene.end(waits)) == (LOST, CLOSED)
    assert second.free_mb == 0


def test_a_session_whose_engine_is_absent_at_the_adoption_continues(scene: Scene) -> None:
    first, second = scene.start(), scene.start()
    session = scene.open(first)
    cells = [scene.send(first, session) for _ in range(2)]
    engine = scene.world.engines[ENGINE]
    engine.away = True
    scene.lose(first)
    scene.wait(100)
    assert (scene.session(session).is_open, scene.session(session).owner) == (True, second.name)
    cells.append(scene.send(second, session))
    assert not cells[-1].done  # the request waits for the connection
    scene.call(engine.come_back)
    scene.wait(2)
    for _ in cells:
        scene.finish()
    assert [scene.end(cell)[0] for cell in cells] == ["completed"] * 3
    assert [cell.code for cell in scene.box().started] == [cell.code for cell in cells]


def test_a_session_whose_engine_is_absent_for_longer_than_its_lease_is_lost(scene: Scene) -> None:
    first, second = scene.start(), scene.start()
    session = scene.open(first)
    ran, waits = (scene.send(first, session) for _ in range(2))
    engine = scene.world.engines[ENGINE]
    engine.away = True
    scene.lose(first)
    scene.wait(LEASE_SECONDS - 1)
    assert scene.session(session).is_open
    scene.wait(10)
    assert scene.session(session).close_reason == "lost"
    assert (scene.end(ran), scene.end(waits)) == (LOST, CLOSED)
    scene.call(engine.come_back)
    assert (scene.boxes, second.free_mb) == ([], 0)


def test_a_replica_that_crashes_is_evicted_before_its_consul_session_expires(scene: Scene) -> None:
    first, second = scene.start(), scene.start()
    session = scene.open(first)
    cell = scene.send(first, session)
    scene.call(first.crash)
    scene.wait(MISSES * PROBE_INTERVAL_SECONDS + 0.5)
    assert scene.session(session).owner == second.name
    scene.finish()
    assert scene.end(cell) == ("completed", None)


def test_a_suspended_replica_keeps_its_membership_until_its_consul_session_expires(scene: Scene) -> None:
    first, _ = scene.start(), scene.start()
    session = scene.open(first)
    scene.call(first.process.hold)
    scene.wait(30)
    assert scene.session(session).owner == first.name
    scene.call(first.process.resume, 40)
    scene.send(first, session)
    assert len(scene.box().started) == 1


def test_a_session_that_no_replica_of_its_engine_adopts_is_lost(scene: Scene) -> None:
    first = scene.start()
    scene.start(engine="engine-2")
    session = scene.open(first)
    ran, waits = (scene.send(first, session) for _ in range(2))
    scene.lose(first)
    scene.wait(30)
    assert scene.session(session).close_reason == "lost"
    assert (scene.end(ran), scene.end(waits)) == (LOST, CLOSED)
    scene.wait(130)
    assert scene.boxes == []


@pytest.mark.parametrize("fault", ["never", "late", "unheard"])
@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("size", [1, INLINE_CODE_BYTES_MAX + 1])
def test_a_cell_that_the_log_did_not_confirm_ends(scene: Scene, fault: str, waits: bool, size: int) -> None:
    life = scene.start()
    session = scene.open(life)
    if waits:
        scene.send(life, session)
    scene.call(lambda: life.process.append_faults.append(fault))
    cell = scene.send(life, session, "x" * size)
    scene.wait(5)
    assert isinstance(cell.error, Unavailable)
    states = sorted(scene.world.states.items())
    assert str(states[-1][1].status) == "failed"
    assert len(scene.box().started) == waits
    last = scene.send(life, session)
    if waits:
        scene.finish()
    assert str(scene.state(last).phase) == "running"


@pytest.mark.parametrize("fault", ["never", "late", "unheard"])
def test_a_session_that_the_log_did_not_confirm_is_not_open(scene: Scene, fault: str) -> None:
    life = scene.start()
    scene.call(lambda: life.process.session_faults.append(fault))
    with pytest.raises(Unavailable):
        scene.open(life)
    scene.wait(5)
    ids = scene.do(scene.world.log.sessions.all()).lengths
    assert [scene.session(session).is_open for session in ids] == [False]
    assert (life.free_mb, scene.boxes) == (0, [])


@pytest.mark.parametrize("fault", ["never", "late", "unheard"])
def test_a_close_that_the_log_did_not_confirm_is_repeated(scene: Scene, fault: str) -> None:
    life = scene.start()
    session = scene.open(life)
    cell = scene.send(life, session)
    scene.call(lambda: life.process.session_faults.append(fault))
    scene.close(life, session)
    scene.wait(5)
    assert scene.session(session).close_reason == "deleted"
    assert scene.end(cell) == CLOSED
    assert (life.free_mb, scene.boxes) == (0, [])


def test_a_session_that_is_being_opened_is_not_adopted_by_its_own_replica(scene: Scene) -> None:
    first, second = scene.start(), scene.start()
    scene.call(lambda: first.process.session_faults.append("slow"))
    scene.open_later(first)
    scene.lose(second)
    scene.wait(10)
    (session,) = scene.do(scene.world.log.sessions.all()).lengths
    assert (scene.session(session).seq, first.sessions.open_count) == (2, 0)
    scene.wait(20)
    assert first.sessions.open_count == 1
    scene.send(first, session)
    assert len(scene.box().started) == 1
