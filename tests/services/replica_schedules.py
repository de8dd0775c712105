"""Random schedules for replicas: each rule is an event that can happen at any time."""

from functools import partial

import anyio
import anyio.lowlevel
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from pyexec.domain.tenants import DEFAULT_TENANT
from tests.services.callers import BAD, GOOD, Request
from tests.services.images import COLD
from tests.services.replicas import TENANTS
from tests.services.simulation import PLACES, Simulation

picks = st.integers(0, 11)
ticks = st.integers(0, 30)
keys = st.sampled_from([None, None, None, "key-1", "key-2"])
packages = st.sampled_from([None, None, "package-1", "package-2", "package-3"])
images = st.sampled_from([None, None, None, f"{COLD}1", f"{COLD}2"])


class Replicas(Simulation, RuleBasedStateMachine):
    """Let Hypothesis choose each event, and the number of steps for which all other tasks run after it."""

    # Actions of callers.

    @rule(
        pick=picks,
        sync=st.booleans(),
        key=keys,
        package=packages,
        image=images,
        tenant=st.sampled_from(TENANTS.names),
        passes=ticks,
    )
    def submit(
        self,
        pick: int,
        sync: bool,
        key: str | None,
        passes: int,
        package: str | None = None,
        image: str | None = None,
        tenant: str = DEFAULT_TENANT,
    ) -> None:
        if (life := self.life(pick)) is None:
            return
        token = f"{'sync' if sync else 'async'}-{key}" if key else str(next(self.tokens))
        request = Request(token, sync, f"{key}-{sync}" if key else None)
        if key is None:
            request.package, request.image, request.tenant = package, image, tenant
        self._request(life, request, GOOD, passes)

    @rule(pick=picks, sync=st.booleans(), passes=ticks)
    def submit_invalid_archive(self, pick: int, sync: bool, passes: int) -> None:
        if (life := self.life(pick)) is not None:
            self._request(life, Request(f"bad-{next(self.tokens)}", sync, None), BAD, passes)

    @rule(pick=picks, passes=ticks)
    def hang_up(self, pick: int, passes: int) -> None:
        waiting = [request for request in self.requests if not request.done]
        if waiting:
            request = waiting[pick % len(waiting)]
            if request.key is None and request.sync:
                self.hung_up.add(request.token)
            self.call(request.hang_up, passes)

    @rule(pick=picks, whom=picks, passes=ticks)
    def kill(self, pick: int, whom: int, passes: int) -> None:
        life, ids = self.life(pick), sorted(self.world.states)
        if life is not None and ids:
            execution_id = ids[-1 - whom % len(ids)]
            self.world.kills_asked.add(execution_id)
            self.spawn(partial(life.kill, execution_id), f"kill {execution_id}", passes)

    # Actions of programs.

    @rule(pick=picks, passes=ticks)
    def program_prints(self, pick: int, passes: int) -> None:
        if (box := self.box(pick)) is not None:
            self.call(lambda: box.print(b"hello "), passes)

    @rule(pick=picks, code=st.integers(0, 2), passes=ticks)
    def program_exits(self, pick: int, code: int, passes: int) -> None:
        if (box := self.box(pick)) is not None:
            self.call(lambda: box.exit(code), passes)

    @rule(pick=picks, passes=ticks)
    def container_breaks(self, pick: int, passes: int) -> None:
        if (box := self.box(pick)) is not None:
            self.world.faults += 1
            self.call(box.end, passes)

    # Faults of replicas.

    @rule(pick=picks, passes=ticks)
    def crash(self, pick: int, passes: int) -> None:
        alive = [life for life in self.lives if not life.process.crashed and not life.ended.is_set()]
        if alive:
            self.world.faults += 1
            self.call(alive[pick % len(alive)].crash, passes)

    @rule(pick=picks, passes=ticks)
    def session_ends(self, pick: int, passes: int) -> None:
        members = [life for life in self.lives if self.world.has_session(life.process)]
        if members:
            self.world.faults += 1
            life = members[pick % len(members)]
            self.call(lambda: self.world.expire(life.process), passes)

    @rule(passes=ticks)
    def leader_is_deposed(self, passes: int) -> None:
        if (leader := self.world.leader) is not None:
            self.call(lambda: self.world.depose(leader), passes)

    @rule(pick=picks, passes=ticks)
    def hold(self, pick: int, passes: int) -> None:
        if (life := self.life(pick)) is not None:
            self.world.faults += 1
            self.call(life.process.hold, passes)

    @rule(pick=picks, passes=ticks)
    def resume(self, pick: int, passes: int) -> None:
        held = [life for life in self.lives if life.process.held is not None]
        if held:
            self.call(held[pick % len(held)].process.resume, passes)

    @rule(place=st.integers(0, len(PLACES) - 1), passes=ticks)
    def start_again(self, place: int, passes: int) -> None:
        life = self.places[place]
        if life is not None and (life.process.crashed or life.ended.is_set()):
            self.do(self._start(place), passes)

    @rule(pick=picks, passes=ticks)
    def stop_in_order(self, pick: int, passes: int) -> None:
        if (life := self.life(pick)) is not None:
            self.world.faults += 1
            self.call(life.shut_down, passes)

    # Faults of the log, the blob store and the engines.

    @rule(pick=picks, fault=st.sampled_from(["never", "late", "unheard"]))
    def next_append_fails(self, pick: int, fault: str) -> None:
        if (life := self.life(pick)) is not None:
            self.world.faults += 1
            life.process.append_faults.append(fault)

    @rule(passes=ticks)
    def store_goes_away(self, passes: int) -> None:
        self.world.faults += 1
        self.world.store_away = True
        self.do(anyio.lowlevel.checkpoint(), passes)

    @precondition(lambda self: self.world.store_away)
    @rule(passes=ticks)
    def store_comes_back(self, passes: int) -> None:
        self.world.store_away = False
        self.do(anyio.lowlevel.checkpoint(), passes)

    @rule(
        place=st.sampled_from(["engine-1", "engine-2"]),
        away=st.booleans(),
        seconds=st.sampled_from([0, 4.0]),
        setup_seconds=st.sampled_from([0, 4.0, 400.0]),
    )
    def engine_changes(self, place: str, away: bool, seconds: float, setup_seconds: float) -> None:
        engine = self.world.engines[place]
        self.world.faults += away
        engine.start_seconds, engine.setup_seconds = seconds, setup_seconds
        if away:
            engine.away = True
        else:
            self.call(engine.come_back)

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.5, 6.0, 25.0, 301.0]))
    def time_passes(self, seconds: float) -> None:
        self.do(anyio.sleep(seconds))
