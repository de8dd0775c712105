"""The invariants of interpreter sessions and their cells (docs/design/sessions.md)."""

from collections import Counter

from pyexec.domain.events import Failed, FailureType, Finished, Killed, Running
from pyexec.domain.execution import Execution, Phase, fold
from pyexec.services.sessions.cells import NEVER_STARTED
from tests.services.session_boxes import SessionBox, StartedCell
from tests.services.session_life import SessionLife
from tests.services.session_replicas import Scene


def check_cells(scene: Scene, boxes: list[SessionBox]) -> None:
    """Check that cells run one after another in the order of acceptance, each at most once."""
    for life in scene.lives:
        if life.died_of is not None:
            raise AssertionError(f"{life.name} died") from life.died_of
    starts = Counter(cell.code for box in boxes for cell in box.started)
    assert all(times == 1 for times in starts.values()), f"code was started more than once: {starts}"
    accepted = _executions_by_nonce(scene)
    for box in boxes:
        assert not box.refused, "a cell was sent while another one ran"
        order = [accepted[cell.nonce] for cell in box.started]
        assert order == sorted(order), f"cells have not started in the order of their acceptance: {order}"


def check_ends(scene: Scene, boxes: list[SessionBox]) -> None:
    """Check that each end in the log is what has happened in the sandbox."""
    started = {cell.nonce: cell for box in boxes for cell in box.started}
    for execution_id, written in list(scene.world.written.items()):
        events = [entry.event for entry in written]
        state = fold(execution_id, events)
        nonce = next((event.nonce for event in events if isinstance(event, Running)), None)
        _check_end(scene, state, None if nonce is None else started.get(nonce))


def _check_end(scene: Scene, state: Execution, cell: StartedCell | None) -> None:
    match state.terminal:
        case Finished():
            assert cell is not None, f"{state.id} has not run"
            assert cell.ended is not None
            assert (cell.ended.reason, cell.ended.exit_code) == ("exit", state.terminal.exit_code)
        case Killed():
            assert state.id in scene.world.kills_asked, f"{state.id} was killed without a kill request"
        case Failed(error_type=FailureType.SESSION_CLOSED) if (
            "before the code started" in state.terminal.error
        ):
            assert cell is None, f"{state.id} has run"
        case Failed(error_type=FailureType.LOST) if cell is not None:
            session = scene.session(state.spec.session_id or "")
            runs = session.container in {box.id for box in scene.boxes if not box.ended}
            # The session of a container that is gone is closed a moment later; `check_rest` checks that.
            assert not (session.is_open and runs), f"{state.id} is lost, but its session continues"


def check_rest(scene: Scene) -> None:
    """Check, after a long time without faults, that every cell has ended, and that nothing is left behind."""
    still_open = [state for state in scene.world.states.values() if state.phase is not Phase.ENDED]
    assert not still_open, f"cells never ended: {still_open}"
    for state in list(scene.world.states.values()):
        if isinstance(state.terminal, Failed) and state.terminal.error_type is FailureType.LOST:
            session = scene.session(state.spec.session_id or "")
            assert state.terminal.error == NEVER_STARTED or not session.is_open, (
                f"{state.id}: session is open"
            )
    ids = scene.do(scene.world.log.sessions.all()).lengths
    sessions = [session for session in map(scene.session, ids) if session.is_open]
    serving = [life for life in scene.lives if life.serving]
    owned = sorted(id for life in serving for id in life.sessions.owned_ids())
    assert owned == sorted(session.id for session in sessions), "open sessions and owned ones differ"
    assert {box.id for box in scene.boxes} == {session.container for session in sessions}
    for life in serving:
        _check_memory(life)
    for cell in scene.cells:
        assert cell.done, f"{cell.code} has no answer"
        assert cell.error is not None or cell.execution_id in scene.world.states


def _check_memory(life: SessionLife) -> None:
    assert life.replica is not None
    owned = life.sessions._owned.values()
    slots = life.replica.runner._slots
    buffer_mb = life.sessions._opening.buffer_mb
    assert -life.free_mb == sum(slots.memory_for(each.state.spec.limits) + buffer_mb for each in owned)
    assert len(life.sessions._reserved) == life.sessions.open_count
    assert not life.replica.runner._active_runs.all()


def _executions_by_nonce(scene: Scene) -> dict[str, tuple[float, str]]:
    """Return, for the nonce of each start, the time at which the cell was accepted, and its id."""
    return {
        entry.event.nonce: (written[0].at, execution_id)
        for execution_id, written in scene.world.written.items()
        for entry in written
        if isinstance(entry.event, Running)
    }
