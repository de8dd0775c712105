"""Containers of interpreter sessions in memory, and a double of `SessionSandbox` that connects a process to one.

A container behaves as docs/design/sessions.md says: a generation is the fence, the frames of the current cell stay
until they are acknowledged, and without a lease it ends."""

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Self

import anyio
from attrs import define, field

from pyexec.domain.events import Usage
from pyexec.domain.output_log import Stream
from pyexec.errors import EngineError, SandboxBroken
from pyexec.guest.wire import LEASE_SECONDS
from pyexec.sandbox.protocol import OutputChunk
from pyexec.sandbox.session_protocol import CellEnded, CellStart, SessionPlan, Synced
from pyexec.sandbox.session_receivers import CellFrame
from tests.services.containers import Box, MemoryEngine
from tests.services.world import Process, ProcessEngine


@define(eq=False)
class StartedCell:
    """One start of a cell's code, and how it ended by itself, if it did."""

    nonce: str
    code: str
    at: float
    ended: CellEnded | None = None


@define(eq=False)
class SessionBox(Box):
    """A container with the supervisor of a session. `started` are the cells that it has started."""

    generation: int = 0
    started: list[StartedCell] = field(factory=list)
    frames: list[CellFrame] = field(factory=list)
    refused: list[str] = field(factory=list)
    restarts: list[str] = field(factory=list)
    deadline: float = field(factory=lambda: anyio.current_time() + LEASE_SECONDS)

    @property
    def cell(self) -> StartedCell | None:
        """The cell that runs."""
        return self.started[-1] if not self.ended and self.started and not self.started[-1].ended else None

    @property
    def synced(self) -> Synced:
        last = self.started[-1] if self.started else None
        return Synced(
            token="",
            generation=self.generation,
            cell_nonce=last.nonce if last else None,
            ended=last is not None and last.ended is not None,
        )

    def hang_up(self) -> None:
        """Do nothing: the session goes on until its lease expires."""

    def obeys(self, generation: int) -> bool:
        """Return True if a line of this generation counts. It fences the earlier ones."""
        if self.ended or generation < self.generation:
            return False
        if generation > self.generation:
            self.generation = generation
            self._announce()
        return True

    def lease(self) -> None:
        self.deadline = anyio.current_time() + LEASE_SECONDS
        self.engine.call_later(LEASE_SECONDS, self._end_without_lease)

    def _end_without_lease(self) -> None:
        if not self.ended and anyio.current_time() >= self.deadline:
            self.end()

    def begin(self, start: CellStart) -> None:
        if self.started and self.started[-1].nonce == start.nonce:
            return
        if self.cell is not None:
            self.refused.append(start.nonce)
            return
        self.frames = []
        cell = StartedCell(start.nonce, start.code, anyio.current_time())
        self.started.append(cell)
        self.engine.call_later(start.timeout, partial(self._time_out, cell))
        if self.engine.programs_end_at_once:
            self.finish()
        self._announce()

    def _time_out(self, cell: StartedCell) -> None:
        if self.cell is cell:
            self.finish(1, "timeout")

    def print(self, data: bytes, stream: Stream = Stream.STDOUT) -> None:
        """Let the cell print."""
        self.frames.append(OutputChunk(stream, data))
        self._announce()

    def finish(self, code: int = 0, reason: str = "exit", *, restarted: bool = False) -> None:
        """Let the cell end."""
        cell = self.cell
        assert cell is not None
        cell.ended = CellEnded(
            nonce=cell.nonce,
            reason=reason,
            exit_code=code,
            signalled=False,
            usage=Usage(cpu_seconds=0.0, peak_memory_bytes=0),
            interpreter_restarted=restarted,
            result_truncated=False,
        )
        self.frames.append(cell.ended)
        self._announce()

    def restart(self) -> None:
        if self.cell is not None:
            self.finish(137, "killed", restarted=True)
        else:
            self.restarts.append("requested")
            self._announce()

    def acknowledge(self, nonce: str) -> None:
        if self.started and self.started[-1].nonce == nonce:
            self.frames = []


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
        if self.box.cell is not None and self.box.cell.nonce == nonce:
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
