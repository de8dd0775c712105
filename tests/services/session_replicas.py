"""Requests of callers to replicas with interpreter sessions, and what the tests look at."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import Any

import anyio
import anyio.lowlevel
from attrs import define

from pyexec.domain.execution import Execution
from pyexec.domain.session import Session, fold_session
from pyexec.domain.session_request import SessionRequest
from pyexec.domain.tenants import DEFAULT_TENANT
from pyexec.errors import ExecutorError, OwnedElsewhere
from pyexec.ports import Caller
from pyexec.services.active_runs import Run
from pyexec.services.sessions.cells import Cell
from tests.services.session_boxes import SessionBox
from tests.services.session_life import ENGINE, SessionLife
from tests.services.world import Crashed
from tests.services.world_loop import WorldLoop


@define(eq=False)
class CellRequest:
    """One caller's cell, and the answer."""

    session_id: str
    code: str
    key: str | None = None
    timeout_seconds: float | None = None
    execution_id: str | None = None
    error: BaseException | None = None
    done: bool = False


class Scene(WorldLoop):
    """Some replicas on one engine."""

    def __init__(self) -> None:
        super().__init__()
        self.lives: list[SessionLife] = []
        self.cells: list[CellRequest] = []
        self._numbers = count(1)

    def wait(self, seconds: float = 0.05) -> None:
        self.do(anyio.sleep(seconds))

    def start(self, engine: str = ENGINE, *, single: bool = False) -> SessionLife:
        """Start a replica."""

        async def start() -> None:
            life = SessionLife(self.world, f"rep_{next(self._numbers)}", engine, single=single)
            self.lives.append(life)
            self.world.tasks.start_soon(life.run, name=life.name)
            await anyio.sleep(1)

        self.do(start())
        return self.lives[-1]

    # Requests.

    def open(self, life: SessionLife, **options: Any) -> str:
        """Open a session, and return its id."""
        request = SessionRequest(**options)
        view = self.do(life.sessions.open(request, None, Caller(), DEFAULT_TENANT))
        return str(view.id)

    def open_later(self, life: SessionLife) -> None:
        """Send a request to open a session."""

        async def send() -> None:
            try:
                await life.sessions.open(SessionRequest(), None, Caller(), DEFAULT_TENANT)
            except (ExecutorError, Crashed):
                return

        self.spawn(send, "open a session", 30)

    def send(
        self,
        life: SessionLife,
        session_id: str,
        code: str | None = None,
        *,
        key: str | None = None,
        timeout_seconds: float | None = None,
        passes: int = 30,
    ) -> CellRequest:
        """Send a cell, and run the loop for `passes`. Its code is unique unless given."""
        cell = CellRequest(session_id, code or f"cell-{len(self.cells)}", key, timeout_seconds)
        self.cells.append(cell)
        self.spawn(partial(self._evaluate, life, cell), cell.code[:20], passes)
        return cell

    async def _evaluate(self, life: SessionLife, cell: CellRequest) -> None:
        made = Cell(code=cell.code, key=cell.key, timeout_seconds=cell.timeout_seconds)
        try:
            accepted = await forwarded(
                self.lives, life, lambda to, who: to.sessions.evaluate(cell.session_id, made, who)
            )
            cell.execution_id = accepted.id if isinstance(accepted, Run) else accepted
        except (ExecutorError, Crashed) as error:
            cell.error = error
        finally:
            cell.done = True

    def close(self, life: SessionLife, session_id: str, passes: int = 30) -> None:
        self.spawn(partial(self._close, life, session_id), f"close {session_id}", passes)

    async def _close(self, life: SessionLife, session_id: str) -> None:
        try:
            await forwarded(self.lives, life, lambda to, who: to.sessions.close(session_id, who))
        except (ExecutorError, Crashed):
            return

    def kill(self, life: SessionLife, cell: CellRequest) -> None:
        execution_id = cell.execution_id
        assert execution_id is not None
        self.world.kills_asked.add(execution_id)
        self.spawn(partial(life.kill, execution_id), f"kill {execution_id}", 30)

    # State.

    def session(self, session_id: str) -> Session:
        return fold_session(session_id, self.do(self.world.log.sessions.read(session_id)))

    def state(self, cell: CellRequest) -> Execution:
        assert cell.execution_id is not None, cell.error
        return self.world.states[cell.execution_id]

    def end(self, cell: CellRequest) -> tuple[str, object]:
        """Return the status of a cell, and the type of its error."""
        state = self.state(cell)
        return str(state.status), getattr(state.terminal, "error_type", None)

    @property
    def boxes(self) -> list[SessionBox]:
        found = self.world.engines[ENGINE].boxes.values()
        return [box for box in found if isinstance(box, SessionBox)]

    def box(self) -> SessionBox:
        (box,) = self.boxes
        return box

    def finish(self, code: int = 0) -> None:
        """Let the running cell end, and the next one begin."""
        self.call(lambda: self.box().finish(code), 40)

    def lose(self, life: SessionLife) -> None:
        """Crash a replica; its Consul session ends."""
        self.call(life.crash)
        self.call(lambda: self.world.expire(life.process))


@contextmanager
def checked_scene() -> Iterator[Scene]:
    """Provide a scene. At the end, check that no replica died of an error."""
    scene = Scene()
    try:
        yield scene
        scene.wait(60)
        for life in scene.lives:
            if life.died_of is not None:
                raise AssertionError(f"{life.name} died") from life.died_of
    finally:
        scene.end_world(scene.lives)


async def forwarded(
    lives: list[SessionLife], life: SessionLife, request: Callable[[SessionLife, Caller], Awaitable[Any]]
) -> Any:
    """Send a request to a replica, which may forward it to the session's owner, as the web layer does."""
    try:
        return await request(life, Caller())
    except OwnedElsewhere as elsewhere:
        owner = next(each for each in lives if each.name == elsewhere.owner)
        return await request(owner, Caller(is_replica=True))
