"""Test interpreter sessions in random schedules, with crashes, suspensions and lost answers of the log at any step."""

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from pyexec.services.sessions.cells import INLINE_CODE_BYTES_MAX
from tests.services.session_boxes import SessionBox
from tests.services.session_invariants import check_cells, check_ends, check_rest
from tests.services.session_life import ENGINE, ID_CLOCK, SessionLife, scripted
from tests.services.session_replicas import Scene
from tests.support.cases import examples

__all__ = ["scripted"]

REPLICAS = 2
picks = st.integers(0, 5)
ticks = st.integers(0, 40)
faults = st.sampled_from(["never", "late", "unheard"])


class SessionReplicas(RuleBasedStateMachine):
    """Let Hypothesis choose each event, and the number of passes of the event loop after it."""

    def __init__(self) -> None:
        super().__init__()
        ID_CLOCK.seconds = 0.0
        self.scene = Scene()
        self.seen: dict[str, SessionBox] = {}

    @initialize()
    def start(self) -> None:
        self.places: list[SessionLife] = [self.scene.start() for _ in range(REPLICAS)]
        self.scene.open_later(self.places[0])
        self.scene.wait(0.1)

    def life(self, pick: int) -> SessionLife | None:
        serving = [life for life in self.scene.lives if life.serving]
        return serving[pick % len(serving)] if serving else None

    def session(self, pick: int) -> str | None:
        ids = sorted(self.scene.do(self.scene.world.log.sessions.all()).lengths)
        return ids[-1 - pick % len(ids)] if ids else None

    def boxes(self) -> list[SessionBox]:
        self.seen.update({box.id: box for box in self.scene.boxes})
        return list(self.seen.values())

    def in_box(self, pick: int, act: Callable[[SessionBox], None], passes: int) -> None:
        running = [box for box in self.scene.boxes if box.cell is not None]
        if running:
            box = running[pick % len(running)]
            self.scene.call(
                lambda: box.cell is not None and act(box), passes
            )  # it may have ended in this pass

    # Actions of callers.

    @rule(pick=picks)
    def open(self, pick: int) -> None:
        if (life := self.life(pick)) is not None:
            self.scene.open_later(life)

    @rule(pick=picks, whom=picks, keyed=st.booleans(), is_long=st.booleans(), passes=ticks)
    def evaluate(self, pick: int, whom: int, keyed: bool, is_long: bool, passes: int) -> None:
        life, session = self.life(pick), self.session(whom)
        if life is not None and session is not None:
            code, key = f"cell-{len(self.scene.cells)}", None
            if keyed:
                code, key = f"keyed-{session}", "key"
            elif is_long:
                code += "x" * INLINE_CODE_BYTES_MAX
            self.scene.send(life, session, code, key=key, passes=passes)

    @rule(pick=picks, whom=picks)
    def kill(self, pick: int, whom: int) -> None:
        life, cells = self.life(pick), [cell for cell in self.scene.cells if cell.execution_id]
        if life is not None and cells:
            self.scene.kill(life, cells[-1 - whom % len(cells)])

    @rule(pick=picks, whom=picks, passes=ticks)
    def close(self, pick: int, whom: int, passes: int) -> None:
        life, session = self.life(pick), self.session(whom)
        if life is not None and session is not None:
            self.scene.close(life, session, passes)

    # Actions of cells and containers.

    @rule(pick=picks, code=st.integers(0, 2), passes=ticks)
    def cell_ends(self, pick: int, code: int, passes: int) -> None:
        self.in_box(pick, lambda box: box.finish(code), passes)

    @rule(pick=picks, passes=ticks)
    def interpreter_ends(self, pick: int, passes: int) -> None:
        self.in_box(pick, lambda box: box.finish(9, restarted=True), passes)

    @rule(pick=picks, passes=ticks)
    def container_ends(self, pick: int, passes: int) -> None:
        self.in_box(pick, lambda box: box.end(), passes)

    # Faults.

    @rule(pick=picks, passes=ticks)
    def crash(self, pick: int, passes: int) -> None:
        if (life := self.life(pick)) is not None:
            self.scene.call(life.crash, passes)

    @rule(pick=picks, passes=ticks)
    def consul_session_ends(self, pick: int, passes: int) -> None:
        members = [life for life in self.scene.lives if self.scene.world.has_session(life.process)]
        if members:
            life = members[pick % len(members)]
            self.scene.call(lambda: self.scene.world.expire(life.process), passes)

    @rule(pick=picks, passes=ticks)
    def hold(self, pick: int, passes: int) -> None:
        if (life := self.life(pick)) is not None:
            self.scene.call(life.process.hold, passes)

    @rule(pick=picks, passes=ticks)
    def resume(self, pick: int, passes: int) -> None:
        held = [life for life in self.scene.lives if life.process.held is not None]
        if held:
            self.scene.call(held[pick % len(held)].process.resume, passes)

    @rule(place=st.integers(0, REPLICAS - 1))
    def start_again(self, place: int) -> None:
        life = self.places[place]
        if life.process.crashed or life.ended.is_set():
            self.places[place] = self.scene.start()

    @rule(pick=picks, passes=ticks)
    def stop_in_order(self, pick: int, passes: int) -> None:
        if (life := self.life(pick)) is not None:
            self.scene.call(life.stop.requested.set, passes)

    @rule(pick=picks, fault=faults, of_session=st.booleans())
    def next_append_fails(self, pick: int, fault: str, of_session: bool) -> None:
        if (life := self.life(pick)) is not None:
            process = life.process
            (process.session_faults if of_session else process.append_faults).append(fault)

    @rule(seconds=st.sampled_from([-3600.0, -0.001, 0.001, 3600.0]))
    def clock_steps(self, seconds: float) -> None:
        ID_CLOCK.seconds += seconds

    @rule(away=st.booleans())
    def store_goes_and_comes(self, away: bool) -> None:
        self.scene.world.store_away = away

    @rule(away=st.booleans(), passes=ticks)
    def engine_goes_and_comes(self, away: bool, passes: int) -> None:
        engine = self.scene.world.engines[ENGINE]
        engine.away = away
        self.scene.call(lambda: None if away else engine.come_back(), passes)

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.5, 6.0, 25.0, 130.0]))
    def time_passes(self, seconds: float) -> None:
        self.scene.wait(seconds)

    @invariant()
    def cells_are_right(self) -> None:
        boxes = self.boxes()
        check_cells(self.scene, boxes)
        check_ends(self.scene, boxes)

    def teardown(self) -> None:
        try:
            self._come_to_rest()
        finally:
            self.scene.end_world(self.scene.lives)

    def _come_to_rest(self) -> None:
        """Repair all faults, end every cell, and start a replica if none serves."""
        scene = self.scene
        scene.world.store_away = False
        for life in scene.lives:
            life.process.append_faults.clear()
            life.process.session_faults.clear()
            scene.call(life.process.resume)
            if life.process.crashed:
                scene.call(lambda life=life: scene.world.expire(life.process))  # type: ignore[misc]
        for engine in scene.world.engines.values():
            engine.programs_end_at_once = True
            scene.call(engine.come_back)
        for box in self.boxes():
            scene.call(lambda box=box: box.cell is not None and box.finish())  # type: ignore[misc]
        scene.wait(15)
        if not any(life.serving for life in scene.lives):
            scene.start()
        scene.wait(500)
        self.cells_are_right()
        check_rest(scene)


def explore(count: int, steps: int) -> None:
    run_state_machine_as_test(
        SessionReplicas,
        settings=settings(
            max_examples=count,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.usefixtures("scripted")
def test_the_invariants_of_sessions_hold_in_random_schedules() -> None:
    explore(examples(30), 30)
