"""Interpreter sessions: the order of cells, their ends, limits, close and drain, on one or two replicas."""

from collections.abc import AsyncIterator, Iterator
from functools import partial

import pytest
from attrs import evolve

from pyexec.correlation import correlate_trace
from pyexec.domain.events import Running
from pyexec.domain.output_log import Stream
from pyexec.domain.spec import RequestedLimits
from pyexec.domain.tenants import DEFAULT_TENANT
from pyexec.errors import (
    InvalidRequest,
    KeyReused,
    QueueFull,
    SessionEnded,
    ShuttingDown,
    TooManySessions,
    UnknownSession,
)
from pyexec.limits import limits_of
from pyexec.ports import Caller
from pyexec.services import run_monitor
from pyexec.services.sessions.cells import CELLS_MAX, Cell
from pyexec.settings import Settings
from tests.services.session_boxes import SessionBox
from tests.services.session_replicas import Scene, checked_scene, scripted

__all__ = ["scripted"]

SMALL = RequestedLimits(memory_mb=64, disk_mb=64)
CLOSED = ("failed", "session_closed")
LOST = ("failed", "lost")


@pytest.fixture
def scene(scripted: None) -> Iterator[Scene]:
    with checked_scene() as scene:
        yield scene


def test_cells_run_one_after_another_in_the_order_of_acceptance(scene: Scene) -> None:
    life = scene.start()
    session = scene.open(life)
    cells = [scene.send(life, session) for _ in range(4)]
    assert [str(scene.state(cell).phase) for cell in cells] == ["running", "claimed", "claimed", "claimed"]
    for number in range(4):
        scene.call(lambda: scene.box().print(b"hello"))
        scene.finish(number)
    assert [cell.code for cell in scene.box().started] == [cell.code for cell in cells]
    ends = [scene.state(cell).terminal for cell in cells]
    assert [end.exit_code for end in ends if end is not None] == [0, 1, 2, 3]
    assert not scene.box().refused
    assert scene.box().frames == []


def test_a_waiting_cell_that_is_killed_ends_at_once_and_never_starts(scene: Scene) -> None:
    life = scene.start()
    session = scene.open(life)
    _, killed, last = (scene.send(life, session) for _ in range(3))
    scene.kill(life, killed)
    assert scene.end(killed) == ("killed", None)
    scene.finish()
    scene.finish()
    assert scene.end(last) == ("completed", None)
    assert killed.code not in [cell.code for cell in scene.box().started]


def test_a_running_cell_that_is_killed_is_interrupted(scene: Scene) -> None:
    life = scene.start()
    session = scene.open(life)
    killed, last = (scene.send(life, session) for _ in range(2))
    scene.kill(life, killed)
    assert scene.end(killed) == ("killed", None)
    assert str(scene.state(last).phase) == "running"


def test_an_internal_error_ends_only_its_session(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    life = scene.start()
    broken, other = (scene.open(life, config=SMALL) for _ in range(2))
    cell = scene.send(life, broken)

    async def fail() -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(life.sessions._owned[broken].sandbox, "lease", fail)
    scene.wait(15)
    assert scene.session(broken).close_reason == "lost"
    assert scene.end(cell) == LOST
    assert scene.session(other).is_open
    next_cell = scene.send(life, other)
    scene.finish()
    assert scene.end(next_cell) == ("completed", None)


def test_a_cell_that_the_supervisor_does_not_end_costs_only_its_session(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SessionBox, "_time_out", lambda *_: None)
    life = scene.start()
    stuck, other = (scene.open(life, config=SMALL) for _ in range(2))
    cell = scene.send(life, stuck, timeout_seconds=1)
    scene.wait(120)
    assert scene.end(cell)[0] == "failed"
    assert scene.session(stuck).close_reason == "lost"
    assert scene.session(other).is_open


def test_a_cell_that_changes_too_often_between_the_streams_ends_and_its_session_goes_on(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_monitor, "STREAM_CHANGES_MAX", 10)
    life = scene.start()
    session = scene.open(life)
    stopped, after = (scene.send(life, session) for _ in range(2))
    for stream in [Stream.STDOUT, Stream.STDERR] * 10:
        scene.call(partial(scene.box().print, b"x", stream))
    assert scene.end(stopped) == ("failed", "output_limit")
    error = getattr(scene.state(stopped).terminal, "error", "")
    assert error == "the program changed 10 times between stdout and stderr and was stopped"
    assert scene.session(session).is_open
    scene.finish()
    assert scene.end(after) == ("completed", None)


def test_a_session_of_another_tenant_does_not_exist(scene: Scene) -> None:
    life = scene.start()
    session, foreign = scene.open(life), Caller(tenant="other")
    sessions = life.sessions
    for request in (
        sessions.get(session, foreign),
        sessions.evaluate(session, Cell(code="1"), foreign),
        sessions.interrupt(session, foreign),
        sessions.restart(session, foreign),
        sessions.close(session, foreign),
        sessions.list_files(session, "*", foreign),
    ):
        with pytest.raises(UnknownSession):
            scene.do(request)
    assert scene.do(sessions.list(foreign)) == []
    assert scene.session(session).is_open


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


def test_a_session_leaves_the_memory_of_one_run_free(scene: Scene) -> None:
    life = scene.start()
    before = life.free_mb
    first = scene.open(life)
    session_mb = before - life.free_mb
    scene.close(life, first)
    slots = life.slots
    run_mb = slots.memory_for(limits_of(Settings(), "default"))
    taken = slots.memory_mb.total - session_mb - run_mb
    slots.reserve_memory_unconditionally(
        evolve(limits_of(Settings(), "default"), memory_mb=0, disk_mb=0), taken
    )
    with pytest.raises(TooManySessions, match=rf"reserves {session_mb} MiB .*PYEXEC_MAX_TOTAL_MEMORY_MB"):
        scene.open(life)
    scene.open(life, config=RequestedLimits(disk_mb=64))
    assert slots.try_reserve(limits_of(Settings(), "default"), DEFAULT_TENANT) is not None


def test_a_cell_has_the_trace_context_of_its_request(scene: Scene) -> None:
    life = scene.start()
    session = scene.open(life)
    parent = f"00-{'a' * 32}-{'b' * 16}-01"

    async def send() -> object:
        correlate_trace(parent, "vendor=1")
        return await life.sessions.evaluate(session, Cell(code="1"), Caller())

    run = scene.do(send(), 30)
    assert (run.execution.traceparent, run.execution.tracestate) == (parent, "vendor=1")


@pytest.mark.parametrize(
    "path", ["../../etc/passwd", "/etc/passwd", "a\0b", "x" * 256, "x/" * 600, "[" * 200]
)
def test_a_bad_path_of_a_file_is_an_error_about_the_path(scene: Scene, path: str) -> None:
    life = scene.start()
    session = scene.open(life)
    with pytest.raises(InvalidRequest, match="path") as refused:
        scene.do(life.sessions.read_file(session, path, Caller()))
    assert refused.value.field == "path"
    assert "pattern" not in str(refused.value)


def test_an_idle_session_is_closed_but_not_while_a_cell_runs(scene: Scene) -> None:
    life = scene.start()
    session = scene.open(life, idle_timeout_seconds=100)
    scene.wait(99)
    scene.send(life, session)
    scene.wait(150)
    assert scene.session(session).is_open
    scene.finish()
    scene.wait(99)
    assert scene.session(session).is_open
    scene.wait(2)
    assert scene.session(session).close_reason == "idle"


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


def test_the_queue_of_a_session_is_bounded(scene: Scene) -> None:
    life = scene.start()
    session = scene.open(life)
    cells = [scene.send(life, session, passes=10) for _ in range(CELLS_MAX + 2)]
    assert [cell.error for cell in cells[:-1]] == [None] * (CELLS_MAX + 1)
    assert isinstance(cells[-1].error, QueueFull)


def test_a_key_runs_a_cell_once(scene: Scene) -> None:
    life = scene.start()
    session = scene.open(life)
    first, again = (scene.send(life, session, "1", key="key") for _ in range(2))
    assert first.execution_id == again.execution_id
    assert isinstance(scene.send(life, session, "2", key="key").error, KeyReused)
    assert len(scene.box().started) == 1


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
    life.sessions._tasks = None  # as after the drain, while the last responses are sent
    with pytest.raises(ShuttingDown):
        scene.open(life)
    (box,) = scene.boxes
    sessions = scene.do(scene.world.log.sessions.all()).lengths
    (closed,) = [scene.session(name) for name in sessions]
    assert (closed.container, closed.close_reason) == (box.id, "shutdown")


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
