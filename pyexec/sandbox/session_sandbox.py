"""The sandbox of an interpreter session: a container whose supervisor runs cells. See docs/design/sessions.md."""

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import suppress
from typing import Self

import anyio

from pyexec.domain.output_files import FileLimits
from pyexec.errors import EngineError, SandboxBroken, Unavailable
from pyexec.ports import Engine
from pyexec.sandbox.protocol import Frame, OutputChunk, ReportChunk, TransferFrame
from pyexec.sandbox.sandbox import Sandbox
from pyexec.sandbox.session_connection import SessionConnection, new_token
from pyexec.sandbox.session_protocol import (
    CellEnded,
    CellStart,
    LineRefused,
    Restarted,
    SessionPlan,
    Synced,
    TransferEnded,
    cell_lines,
    json_line,
    line,
    session_plan_frame,
)
from pyexec.sandbox.session_receivers import CellFrame, CellReceiver, FileFrame, Refusals, pause_after
from pyexec.sandbox.session_transfers import SessionTransfers

OPEN_SECONDS = 30.0
EMPTY_ARCHIVE = bytes(1024)  # a tar without members
RESTART_PAUSE_SECONDS = 0.1  # limits how many restarts a hostile image can report; a real one takes longer
FENCED, LOST, BROKEN = "fenced", "lost", "broken"

logger = logging.getLogger(__name__)


class SessionSandbox:
    """A sandbox that runs the cells of one session.

    Call `from_sandbox`, then `send_archive` as often as needed, `unpack` and `open`; or only `adopt`. Then `serve` must
    run as a task. It reconnects if the connection breaks. After `ended`, everything that waits raises `SandboxBroken`.
    `end_reason` is `lost` (container or lease has ended), `fenced` (adopted elsewhere) or `broken` (bad frames)."""

    def __init__(self, connection: SessionConnection, generation: int) -> None:
        self._connection = connection
        self._generation = generation
        self._sandbox: Sandbox | None = None  # until the session opens
        self._has_archive = False
        self.image: str | None = None
        self.synced: Synced | None = None  # the answer to `open`, or to the first connection after `adopt`
        self.ready = anyio.Event()
        """Set when `synced` has a value, or when the sandbox has ended without one."""
        self.ended = anyio.Event()
        self.end_reason: str | None = None
        self.on_restart: Callable[[str], object] = lambda _: None
        """Called at a restart between two cells. The reasons: `requested`, `exit`, `out_of_memory`, `disk_limit`."""
        self._cell: CellReceiver | None = None
        self._start: CellStart | None = None  # sent again if the supervisor has not received it
        self._numbered: dict[str, bytes] = {}
        """The last line of each command, to send again after a reconnection."""
        self._last_number = 0
        self._transfers = SessionTransfers(self._write_line)
        self._refusals = Refusals()

    @property
    def container_id(self) -> str:
        return self._connection.container_id

    @classmethod
    def from_sandbox(cls, engine: Engine, sandbox: Sandbox) -> Self:
        """Return the session's view of a sandbox that was started for sessions, such as one of the pool."""
        session = cls(SessionConnection(engine, sandbox.container_id, sandbox.detach_stream()), 0)
        session._sandbox = sandbox
        session.image = sandbox.image
        return session

    @classmethod
    def adopt(cls, engine: Engine, container_id: str, generation: int) -> Self:
        """Return the sandbox of a session that another replica has opened. `serve` connects to it, which fences that
        replica, and sets `ready`."""
        return cls(SessionConnection(engine, container_id), generation)

    async def send_archive(self, data: bytes) -> None:
        """Send the next bytes of the archive, as `Sandbox.send_archive`."""
        self._has_archive = True
        await self._unopened().send_archive(data)

    async def unpack(self) -> None:
        """End the archive, as `Sandbox.unpack`. Needed without an archive, too."""
        if not self._has_archive:
            await self.send_archive(EMPTY_ARCHIVE)
        await self._unopened().unpack()

    async def open(self, plan: SessionPlan, generation: int) -> None:
        """Open the session. Raises `SandboxRefused`, also if IPython is missing or does not start."""
        self._unopened()
        self._sandbox = None
        self._generation = generation
        await self._connection.write(session_plan_frame(plan, generation, new_token()))
        with anyio.move_on_after(OPEN_SECONDS):
            stream = self._connection.stream
            self.synced = stream.check(await stream.next(), Synced)
            self.ready.set()
            return
        raise SandboxBroken(f"opening the session timed out after {OPEN_SECONDS:g} s")

    async def serve(self) -> None:
        """Read frames until the sandbox ends, or another replica has adopted the session."""
        try:
            if not self._connection.is_open:
                await self._connect()
            while self.end_reason is None:
                try:
                    frame = await self._connection.stream.next()
                except (EngineError, Unavailable) as error:
                    if self.end_reason is None:
                        logger.warning("connection to sandbox %s lost: %s", self._connection.name, error)
                        await self._reconnect()
                    continue
                if frame is None:
                    self.end_reason = LOST
                else:
                    await self._dispatch(frame)
        except SandboxBroken as error:
            logger.warning("the session's sandbox %s is broken: %s", self._connection.name, error)
            self.end_reason = BROKEN
        finally:
            self.ended.set()
            self.ready.set()
            self._transfers.fail(self._broken())
            if self._cell is not None:
                self._cell.close()

    async def run_cell(self, cell: CellStart) -> AsyncIterator[CellFrame]:
        """Run a cell, and yield its output and reports, and last `CellEnded`. Call `acknowledge` when that is stored.

        With `resume`, the cell must be that of `synced`. Raises `SandboxBroken` if the sandbox ends before."""
        if cell.resume:
            receiver = self._cell
            if receiver is None or receiver.nonce != cell.nonce:
                raise SandboxBroken("the sandbox has never received this cell")
        else:
            if self._cell is not None:  # one of an earlier owner, whose end was stored
                self._cell.close()
                self._cell.frames.close()
            receiver = self._cell = CellReceiver(cell.nonce)
            self._start = cell
            await self._try_to_write(cell_lines(self._generation, cell))
        if self.ended.is_set():
            raise self._broken()
        async with receiver.frames:
            async for frame in receiver.frames:
                yield frame
                if isinstance(frame, CellEnded):
                    return
        raise self._broken()

    async def acknowledge(self, nonce: str) -> None:
        """Let the supervisor drop the frames of a cell that has ended."""
        if self._cell is not None and self._cell.nonce == nonce:
            self._cell.close()
            self._cell.frames.close()
            self._cell = self._start = None
        await self._try_to_write(json_line("ACK", self._generation, nonce=nonce))

    async def interrupt(self) -> bool:
        """Raise `KeyboardInterrupt` in the running cell. Return False if none runs."""
        if self._cell is None or self._cell.ended:
            return False
        await self._write_numbered("INTERRUPT", nonce=self._cell.nonce)
        return True

    async def kill_cell(self, nonce: str) -> None:
        """Interrupt this cell. If it has not ended after two seconds, the supervisor restarts the interpreter."""
        await self._write_numbered("KILL", nonce=nonce)

    async def restart(self) -> None:
        """Restart the interpreter. A cell that runs ends as `killed`; without one, `on_restart` gets `requested`."""
        await self._write_numbered("RESTART")

    async def lease(self) -> None:
        """Renew the lease. Does nothing while the engine does not respond."""
        await self._try_to_write(json_line("LEASE", self._generation))

    async def ran_out_of_memory(self) -> bool:
        """Return True after a kill for lack of memory, as `SessionConnection.has_oom_event`."""
        return await self._connection.has_oom_event()

    async def engine_answers(self) -> bool:
        """Return False if the engine does not respond."""
        return await self._connection.engine_answers()

    async def cpu_seconds(self) -> float | None:
        """Return the processor time of the container without that of transfers; None if the engine reports none."""
        used = await self._connection.cpu_seconds()
        return None if used is None else used - self._transfers.cpu_seconds

    async def remove(self) -> None:
        """Kill the sandbox and remove its container. `serve` ends, and does not reconnect."""
        self.end_reason = self.end_reason or LOST
        await self._connection.remove()

    async def detach(self) -> None:
        """Close the connection. The session continues until its lease expires."""
        await self._connection.detach()

    async def write_file(self, path: str, chunks: AsyncIterator[bytes]) -> None:
        """Write a file below /work, and create its directories. It gets its name when it is complete.

        This and the following methods raise `SessionFileError`, or `EngineError` if the connection breaks."""
        await self._transfers.write(path, chunks)

    async def delete_file(self, path: str) -> None:
        """Delete a file or a link."""
        await self._transfers.delete(path)

    def read_files(self, patterns: tuple[str, ...], limits: FileLimits) -> AsyncGenerator[FileFrame, None]:
        """Yield the files that match the patterns of `output_files`, with their contents."""
        return self._transfers.read(patterns, limits, only_names=False)

    def list_files(self, patterns: tuple[str, ...], limits: FileLimits) -> AsyncGenerator[FileFrame, None]:
        """Yield the names and sizes of the files that match, without contents."""
        return self._transfers.read(patterns, limits, only_names=True)

    async def _dispatch(self, frame: Frame) -> None:
        if isinstance(frame, OutputChunk | ReportChunk):
            if self._cell is None or self._cell.ended:
                await pause_after(len(frame.data))
            else:
                await self._cell.add(frame)
        elif isinstance(frame, CellEnded):
            if self._cell is not None and self._cell.nonce == frame.nonce:
                await self._cell.add(frame)
        elif isinstance(frame, Restarted):
            self.on_restart(frame.reason)
            await anyio.sleep(RESTART_PAUSE_SECONDS)
        elif isinstance(frame, TransferFrame | TransferEnded):
            if dropped := self._transfers.add(frame):
                await pause_after(dropped)
        elif isinstance(frame, Synced):
            if frame.generation > self._generation:
                self.end_reason = FENCED
        elif isinstance(frame, LineRefused):
            self._refusals.record(self._connection.name, frame.message)
        else:
            raise SandboxBroken(f"a session's sandbox sent an unexpected frame: {type(frame).__name__}")

    async def _reconnect(self) -> None:
        """Attach again, and read the cell again from its beginning. Set `end_reason` if the container has ended."""
        self._transfers.fail(EngineError("the connection to the sandbox was lost during a transfer of files"))
        synced = await self._connection.open(self._generation)
        if synced is None:
            self.end_reason = LOST
        elif self._cell is not None and not self._cell.ended:
            if synced.cell_nonce == self._cell.nonce:
                self._cell.restart()
            elif self._start is not None:
                await self._try_to_write(cell_lines(self._generation, self._start))
        await self._try_to_write(b"".join(self._numbered.values()))

    async def _connect(self) -> None:
        """Connect to the container of an adopted session. Set `end_reason` if it has ended."""
        self.synced = await self._connection.open(self._generation)
        if self.synced is None:
            self.end_reason = LOST
            return
        if self.synced.cell_nonce is not None:
            self._cell = CellReceiver(self.synced.cell_nonce)
        self.ready.set()
        logger.info("connected to the sandbox %s of an adopted session", self._connection.name)

    async def _write_line(self, command: str, payload: bytes, data: bytes) -> None:
        if self.ended.is_set():
            raise self._broken()
        await self._connection.write(line(command, self._generation, payload, data))

    async def _write_numbered(self, command: str, **request: str) -> None:
        """Write a line that is sent again after a reconnection."""
        if self.ended.is_set():
            raise self._broken()
        self._last_number += 1
        self._numbered[command] = json_line(command, self._generation, number=self._last_number, **request)
        await self._try_to_write(self._numbered[command])

    async def _try_to_write(self, data: bytes) -> None:
        """Write a line. Ignore a failure: a reconnection sends the line again or makes it unnecessary."""
        with suppress(EngineError, Unavailable):
            await self._connection.write(data)

    def _unopened(self) -> Sandbox:
        if self._sandbox is None:
            raise RuntimeError("the session is open")
        return self._sandbox

    def _broken(self) -> SandboxBroken:
        return SandboxBroken(f"the session's sandbox has ended: {self.end_reason or 'the server shuts down'}")
