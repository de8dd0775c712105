"""The sandbox of an interpreter session: a container whose supervisor runs cells. See docs/design/sessions.md."""

from collections.abc import AsyncIterator
from typing import Self

from pyexec.domain.output_files import FileLimits
from pyexec.ports import ContainerSpec, Engine
from pyexec.sandbox.protocol import (
    FileChunk,
    FileHeader,
    FilesCollected,
    FileSkipped,
    OutputChunk,
    ReportChunk,
)
from pyexec.sandbox.sandbox import Sandbox
from pyexec.sandbox.session_protocol import CellEnded, CellStart, SessionPlan, Synced

CellFrame = OutputChunk | ReportChunk | CellEnded
FileFrame = FileHeader | FileChunk | FileSkipped | FilesCollected


class SessionSandbox:
    """(The interface; the implementation follows in the next commits.)

    After `start` or `from_sandbox`: `send_archive` as often as needed, `unpack`, `open`; or `adopt` instead of all.
    Then `serve` must run as a task. When it ends, `ended` is set, `end_reason` says why, and what waits raises
    `SandboxBroken`."""

    container_id: str
    image: str | None
    python: str
    synced: Synced
    """What the supervisor answered to `open` or `adopt`."""
    ended: "anyio.Event"  # noqa: F821
    end_reason: str | None
    """`fenced` if another replica has adopted the session, else `lost`."""
    restarts: "anyio.streams.memory.MemoryObjectReceiveStream[str]"  # noqa: F821
    """The reasons of restarts between two cells: requested, exit, out_of_memory, disk_limit."""

    @classmethod
    async def start(cls, engine: Engine, spec: ContainerSpec, image: str | None = None) -> Self: ...
    @classmethod
    def from_sandbox(cls, sandbox: Sandbox) -> Self: ...
    @classmethod
    async def adopt(cls, engine: Engine, container_id: str, generation: int) -> Self: ...
    async def send_archive(self, data: bytes) -> None: ...
    async def unpack(self) -> None: ...
    async def open(self, plan: SessionPlan, generation: int) -> None:
        """Raises `SandboxRefused` with the code `no_interpreter` if IPython is missing or does not start."""

    async def serve(self) -> None: ...
    def run_cell(self, cell: CellStart) -> AsyncIterator[CellFrame]:
        """Yield the cell's output, last `CellEnded`. Raises `SandboxBroken` if the session ends before."""

    async def acknowledge(self, nonce: str) -> None: ...
    async def interrupt(self) -> bool: ...
    async def kill_cell(self, nonce: str) -> None: ...
    async def restart(self) -> None: ...
    async def lease(self) -> None: ...
    async def close(self) -> None: ...
    async def remove(self) -> None: ...
    async def detach(self) -> None: ...
    async def write_file(self, path: str, chunks: AsyncIterator[bytes]) -> None:
        """Replace or create a file below /work, and its directories. Not a tar: one file at a time.

        Raises `SessionFileError` with a code: invalid_path, not_found, is_directory, is_link, disk_full, error."""

    def read_files(self, patterns: tuple[str, ...], limits: FileLimits) -> AsyncIterator[FileFrame]: ...
    def list_files(self, patterns: tuple[str, ...], limits: FileLimits) -> AsyncIterator[FileFrame]:
        """Like `read_files`, without `FileChunk`."""

    async def delete_file(self, path: str) -> None: ...
