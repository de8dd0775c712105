"""Containers of interpreter sessions in memory.

A container behaves as docs/design/sessions.md says: a generation is the fence, the frames of the current cell stay
until they are acknowledged, and without a lease it ends."""

from functools import partial

import anyio
from attrs import define, field

from pyexec.domain.events import Usage
from pyexec.domain.output_log import Stream
from pyexec.guest.wire import LEASE_SECONDS
from pyexec.sandbox.protocol import OutputChunk
from pyexec.sandbox.session_protocol import CellEnded, CellStart, Synced
from pyexec.sandbox.session_receivers import CellFrame
from tests.services.containers import Box


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
    is_hostile: bool = False
    """True if its supervisor does not end a cell at a kill or at a limit."""
    cpu_seconds: float = 0.0
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
        if self.cell is cell and not self.is_hostile:
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
