"""Interpreter sessions: the order of cells, their ends, and limits."""

from collections.abc import Iterator
from functools import partial

import pytest
from attrs import evolve

from pyexec.correlation import correlate_trace
from pyexec.domain.output_log import Stream
from pyexec.domain.spec import RequestedLimits
from pyexec.domain.tenants import DEFAULT_TENANT
from pyexec.errors import InvalidRequest, KeyReused, QueueFull, TooManySessions, UnknownSession
from pyexec.limits import limits_of
from pyexec.ports import Caller
from pyexec.services import run_monitor
from pyexec.services.sessions.cells import CELLS_MAX, Cell
from pyexec.settings import Settings
from tests.services.session_boxes import SessionBox
from tests.services.session_life import scripted
from tests.services.session_replicas import Scene, checked_scene

__all__ = ["scripted"]

SMALL = RequestedLimits(memory_mb=64, disk_mb=64)
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
        evolve(limits_of(Settings(), "default"), memory_mb=0, disk_mb=0), taken, "another"
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
