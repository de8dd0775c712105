"""Interpreter sessions: what takes no longer, and grows no larger, than its bound."""

from collections.abc import Iterator
from functools import partial

import pytest

from pyexec.domain.output_log import Stream
from pyexec.domain.session import SessionStatus
from pyexec.domain.session_request import SessionRequest
from pyexec.domain.spec import RequestedLimits
from pyexec.errors import TooManySessions
from pyexec.ports import Caller
from pyexec.services import run_monitor
from pyexec.services.sessions import owned_session
from pyexec.services.sessions.cell_monitor import GRACE_SECONDS
from pyexec.services.sessions.cells import CODE_SECONDS, INLINE_CODE_BYTES_MAX
from tests.services.session_life import ENGINE, SessionLife, scripted
from tests.services.session_replicas import Scene, checked_scene

__all__ = ["scripted"]

SMALL = SessionRequest(config=RequestedLimits(memory_mb=64, disk_mb=64))
LONG = "# " + INLINE_CODE_BYTES_MAX * "x"


@pytest.fixture
def scene(scripted: None) -> Iterator[Scene]:
    with checked_scene() as scene:
        yield scene


@pytest.mark.parametrize("is_killed", [True, False])
def test_a_cell_whose_code_cannot_be_read_ends_and_the_next_one_runs(
    scene: Scene, *, is_killed: bool
) -> None:
    """Long code is in the blob store, which may fail when the cell has its turn."""
    life = scene.start()
    session = scene.open(life)
    first, long, last = scene.send(life, session), scene.send(life, session, LONG), scene.send(life, session)
    scene.world.blobs.clear()
    scene.finish()
    scene.wait(5)
    assert str(scene.state(long).phase) == "running"
    if is_killed:
        scene.kill(life, long)
    else:
        scene.wait(CODE_SECONDS)
    assert scene.end(long) == (("killed", None) if is_killed else ("failed", "internal"))
    scene.finish()
    assert [scene.end(cell) for cell in (first, last)] == 2 * [("completed", None)]
    assert LONG not in [cell.code for cell in scene.box().started]


@pytest.mark.parametrize(
    ("limit", "end"),
    [
        ("kill", ("killed", None)),
        ("cpu", ("failed", "cpu_limit")),
        ("time", ("failed", "timeout")),
        ("output", ("failed", "output_limit")),
    ],
)
def test_a_cell_ends_although_its_supervisor_ignores_every_limit(
    scene: Scene, limit: str, end: tuple[str, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image of a session may have another interpreter, which runs the supervisor."""
    monkeypatch.setattr(run_monitor, "STREAM_CHANGES_MAX", 10)
    life = scene.start()
    session = scene.open(life, config=RequestedLimits(cpu_seconds=2.0))
    cell = scene.send(life, session, timeout_seconds=1.0 if limit == "time" else 600.0)
    scene.box().is_hostile = True
    scene.wait(5)
    assert str(scene.state(cell).phase) == "running"
    if limit == "kill":
        scene.kill(life, cell)
    elif limit == "cpu":
        scene.box().cpu_seconds = 10.0
    elif limit == "output":
        for stream in [Stream.STDOUT, Stream.STDERR] * 10:
            scene.call(partial(scene.box().print, b"x", stream))
    scene.wait(GRACE_SECONDS + 5)
    assert scene.end(cell) == end
    assert not scene.session(session).is_open
    assert not scene.boxes


@pytest.mark.parametrize("limit", ["kill", "cpu", "time"])
def test_a_session_survives_a_silent_engine_while_a_cell_ends(scene: Scene, limit: str) -> None:
    """Neither the kill nor the end of the cell may pass such an engine."""
    life = scene.start()
    session = scene.open(life, config=RequestedLimits(cpu_seconds=2.0))
    cell = scene.send(life, session, timeout_seconds=1.0 if limit == "time" else 600.0)
    box = scene.box()
    box.is_hostile = True  # its answers do not arrive
    scene.wait(3)
    engine = scene.world.engines[ENGINE]
    if limit == "kill":
        scene.kill(life, cell)
    elif limit == "cpu":
        box.cpu_seconds = 10.0
        scene.wait(3)
    engine.away = True
    scene.wait(GRACE_SECONDS + 30)
    engine.away = False
    scene.wait(30)
    assert str(scene.state(cell).phase) == "running"
    scene.call(lambda: box.finish(1, {"kill": "killed", "cpu": "cpu_limit", "time": "timeout"}[limit]), 10)
    assert scene.end(cell)[1] == {"kill": None, "cpu": "cpu_limit", "time": "timeout"}[limit]
    assert scene.session(session).is_open
    assert scene.boxes


def test_the_log_of_a_session_keeps_a_bounded_number_of_restarts(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every replica reads the whole log of a session, again and again."""
    monkeypatch.setattr(owned_session, "RESTARTS_MAX", 3)
    life = scene.start()
    session = scene.open(life)
    for _ in range(4):
        view = scene.do(life.sessions.restart(session, Caller()), 40)
    assert view.interpreter_restarts == 3
    for _ in range(3):
        scene.call(scene.box().restart, 30)
    cell = scene.send(life, session)
    scene.call(lambda: scene.box().finish(137, "timeout", restarted=True), 40)
    assert scene.end(cell) == ("failed", "timeout")
    assert scene.session(session).seq == 2 + 3
    scene.close(life, session)
    assert not scene.session(session).is_open


async def opened(life: SessionLife) -> str:
    try:
        await life.sessions.open(SMALL, None, Caller(), "capped")
    except TooManySessions:
        return "too many"
    return "opened"


def test_two_replicas_do_not_open_more_sessions_than_a_tenant_may_have(scene: Scene) -> None:
    """Each of them counts the sessions of the other before it opens one, which can take minutes."""
    lives = scene.start(), scene.start()
    answers: list[str] = []

    async def send(life: SessionLife) -> None:
        answers.append(await opened(life))

    for life in lives:
        scene.spawn(partial(send, life), "open a session", passes=0)
    scene.wait(1)
    views = scene.do(lives[0].sessions.list(Caller(tenant="capped")))
    is_open = [view for view in views if view.status is SessionStatus.OPEN]
    assert len(answers) == 2
    assert len(is_open) == 2 - answers.count("too many") <= 1
    scene.wait(5)
    assert scene.do(opened(lives[0])) == ("too many" if is_open else "opened")
