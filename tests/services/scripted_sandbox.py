"""A double of `SessionSandbox`: the connection of one process to a container of a session in memory."""

from collections.abc import AsyncIterator, Callable
from typing import Self

import anyio

from pyexec.errors import EngineError, SandboxBroken
from pyexec.guest.wire import LEASE_SECONDS
from pyexec.sandbox.session_protocol import CellEnded, CellStart, SessionPlan, Synced
from pyexec.sandbox.session_receivers import CellFrame
from tests.services.containers import MemoryEngine
from tests.services.process_engine import ProcessEngine
from tests.services.session_boxes import SessionBox
from tests.services.world import Process


class ScriptedSandbox:
    """The double of `SessionSandbox`: the connection of one process to a container."""

    image: str | None = None
    python = "3.12"
    _container_id: str
    _engine: MemoryEngine

    def __init__(self, box: SessionBox | None, process: Process, generation: int) -> None:
        self._box = box
        self._process = process
        self._generation = generation
        self.synced: Synced | None = None
        self.ready = anyio.Event()
        self.ended = anyio.Event()
        self.end_reason: str | None = None
        self.on_restart: Callable[[str], object] = lambda _: None
        self.is_unpacked = False

    @property
    def container_id(self) -> str:
        return self._container_id

    @property
    def box(self) -> SessionBox:
        if self._box is None:
            raise EngineError("the sandbox is not connected yet")
        return self._box

    @classmethod
    def from_sandbox(cls, engine: ProcessEngine, box: SessionBox) -> Self:
        sandbox = cls(box, engine._process, 0)
        sandbox._container_id, sandbox._engine = box.id, engine._engine
        return sandbox

    @classmethod
    def adopt(cls, engine: ProcessEngine, container_id: str, generation: int) -> Self:
        sandbox = cls(None, engine._process, generation)
        sandbox._container_id, sandbox._engine = container_id, engine._engine
        return sandbox

    async def unpack(self) -> None:
        await self._process.passing()
        self.is_unpacked = True

    async def open(self, _plan: SessionPlan, generation: int) -> None:
        assert self.is_unpacked
        if not await self._send(generation):
            raise SandboxBroken("the container is gone")
        self._generation, self.synced = generation, self.box.synced
        self.ready.set()
        self.box.lease()

    async def serve(self) -> None:
        restarts = 0
        try:
            if self._box is None:
                await self._connect()
            while self.end_reason is None:
                changed = self.box.changed
                await self._process.passing()
                for reason in self.box.restarts[restarts:]:
                    self.on_restart(reason)
                restarts = len(self.box.restarts)
                if self.box.ended:
                    self.end_reason = "lost"
                elif self._is_fenced:
                    self.end_reason = "fenced"
                else:
                    await changed.wait()
        finally:
            self.ended.set()
            self.ready.set()

    async def _connect(self) -> None:
        """Connect to the container of an adopted session, as `SessionConnection.open` does."""
        with anyio.move_on_after(LEASE_SECONDS):
            while True:
                await self._process.passing()
                if not self._engine.away:
                    break
                await anyio.sleep(1)
            box = self._engine.boxes.get(self.container_id)
            if isinstance(box, SessionBox) and box.obeys(self._generation):
                self._box, self.synced = box, box.synced
                box.lease()
                await self._process.passing()
                self.ready.set()
                return
        self.end_reason = "lost"

    async def run_cell(self, start: CellStart) -> AsyncIterator[CellFrame]:
        if not start.resume and await self._send(self._generation):
            self.box.begin(start)
        sent = 0
        while not self.ended.is_set():
            changed = self.box.changed
            await self._process.passing()
            mine = self.box.started and self.box.started[-1].nonce == start.nonce and not self._is_fenced
            if mine and sent < len(self.box.frames):
                frame = self.box.frames[sent]
                sent += 1
                yield frame
                if isinstance(frame, CellEnded):
                    return
            else:
                await self._wait(changed)
        raise self._broken()

    async def acknowledge(self, nonce: str) -> None:
        if await self._send(self._generation):
            self.box.acknowledge(nonce)

    async def interrupt(self) -> bool:
        await self._command()
        if self.box.cell is None:
            return False
        self.box.finish(1)
        return True

    async def kill_cell(self, nonce: str) -> None:
        await self._command()
        if self.box.cell is not None and self.box.cell.nonce == nonce and not self.box.is_hostile:
            self.box.finish(1, "killed")

    async def restart(self) -> None:
        await self._command()
        self.box.restart()

    async def write_file(self, _path: str, chunks: AsyncIterator[bytes]) -> None:
        async for _ in chunks:
            await self._command()

    async def lease(self) -> None:
        if await self._send(self._generation):
            self.box.lease()

    async def ran_out_of_memory(self) -> bool:
        await self._process.passing()
        return self._box is not None and self._box.ran_out_of_memory

    async def engine_answers(self) -> bool:
        await self._process.passing()
        return not self._engine.away

    async def cpu_seconds(self) -> float | None:
        await self._process.passing()
        return None if self._box is None else self._box.cpu_seconds

    async def remove(self) -> None:
        await self._process.passing()
        if self._engine.away:
            self._engine.unremoved.add(self.container_id)  # the adapter does it later
        self._engine.check()
        self._engine.remove(self.container_id)

    async def detach(self) -> None:
        await self._process.passing()

    @property
    def _is_fenced(self) -> bool:
        return self.box.generation > self._generation

    async def _send(self, generation: int) -> bool:
        """Pass what may hold or end the process. Return True if the container obeys its line."""
        await self._process.passing()
        return self._box is not None and self._box.obeys(generation)

    async def _command(self) -> None:
        if self.ended.is_set():
            raise self._broken()
        if not await self._send(self._generation):
            raise EngineError("the line was not sent")

    async def _wait(self, changed: anyio.Event) -> None:
        """Wait for a change of the container, or the end of `serve`."""
        async with anyio.create_task_group() as waiting:

            async def end() -> None:
                await self.ended.wait()
                waiting.cancel_scope.cancel()

            waiting.start_soon(end, name="end")
            await changed.wait()
            waiting.cancel_scope.cancel()

    def _broken(self) -> SandboxBroken:
        return SandboxBroken(f"the session's sandbox has ended: {self.end_reason or 'the server shuts down'}")
