"""Sessions: an interpreter that keeps its variables between calls."""

from __future__ import annotations

import builtins
import uuid
from collections.abc import AsyncGenerator, Iterator, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import anyio
from attrs import define, field, frozen

from . import session_requests as requests
from .content import FileData, content
from .errors import InvalidAnswer, NotFound, PyexecError, SessionClosed, reading
from .event_stream import OnEvent, last_result, stream_events
from .events import Event
from .requests import Request
from .result import OutputFile, Result
from .retry import Retry
from .transport import Transport

_CLOSE_SECONDS = 10.0
"""How long a cancelled task waits for the server to close its session."""


@frozen(kw_only=True)
class SessionInfo:
    """The state of a session.

    - `status`: `open` or `closed`; then `close_reason` is deleted, idle, lifetime, lost, memory or shutdown
    - `expires_at`: when it closes if no request uses it before; None while it is in use
    - `interpreter_restarts`: how often it got a new interpreter, which loses the variables
    - `cells_waiting`: the number of cells in its queue; `running_cell`: the execution ID of the cell that runs
    - `raw`: the JSON object of the response, including fields that only newer servers send
    """

    id: str
    status: str
    created_at: datetime | None = None
    expires_at: datetime | None = None
    replica: str | None = None
    docker_image: str | None = None
    idle_timeout_seconds: float | None = None
    lifetime_seconds: float | None = None
    interpreter_restarts: int = 0
    close_reason: str | None = None
    cells_waiting: int = 0
    running_cell: str | None = None
    raw: Mapping[str, Any] = field(factory=dict, repr=False, eq=False)

    @property
    def is_open(self) -> bool:
        """Return True if the session accepts cells."""
        return self.status == "open"

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Convert the JSON object of a response. Raise InvalidAnswer if it is not a session."""
        with reading("a session", data):
            known: dict[str, Any] = {name: data[name] for name in _PLAIN if data.get(name) is not None}
            known |= {name: datetime.fromisoformat(data[name]) for name in _TIMES if data.get(name)}
            cells = data.get("cells") or {}
            return cls(
                id=data["id"],
                status=data["status"],
                cells_waiting=cells.get("waiting") or 0,
                running_cell=cells.get("running"),
                raw=data,
                **known,
            )


_TIMES = ("created_at", "expires_at")
_PLAIN = (
    *("replica", "docker_image", "idle_timeout_seconds", "lifetime_seconds"),
    *("interpreter_restarts", "close_reason"),
)


@frozen(kw_only=True)
class FileList:
    """Files of a session. `truncated` is true if there are more than the server lists."""

    files: tuple[OutputFile, ...]
    truncated: bool = False

    def __iter__(self) -> Iterator[OutputFile]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)


@frozen
class AsyncSessionFiles:
    """The files below /work of a session. Paths are relative to it. Uploads and downloads take constant memory."""

    _http: Transport
    _retry: Retry
    _id: str

    async def upload(self, path: str, data: FileData) -> None:
        """Write a file: from bytes, a path on this machine, an open binary file, or a stream of bytes."""
        async with self._http.open(requests.upload(self._id, path, content(data), self._retry)):
            return

    def download(self, path: str) -> AsyncGenerator[bytes, None]:
        """Yield the contents of a file, in chunks."""
        return self._chunks(requests.download(self._id, path, self._retry))

    async def read(self, path: str) -> bytes:
        """Return the contents of a file."""
        return b"".join([chunk async for chunk in self.download(path)])

    async def delete(self, path: str) -> None:
        """Delete a file."""
        async with self._http.open(requests.delete(self._id, path)):
            return

    async def list(self, glob: str | None = None) -> FileList:
        """Return all files, or those that match a pattern such as `*.csv`."""
        data = await self._http.json(requests.list_files(self._id, glob, self._retry))
        try:
            files = tuple(OutputFile(path=each["path"], size=each["size"]) for each in data["files"])
            return FileList(files=files, truncated=bool(data.get("truncated")))
        except (KeyError, TypeError, AttributeError) as error:
            raise InvalidAnswer(
                f"invalid response from the server: not a list of files: {error!r}"
            ) from error

    def download_tar(self, glob: str | None = None) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of a tar archive of all files, or of those that match a pattern."""
        return self._chunks(requests.download_tar(self._id, glob, self._retry))

    async def _chunks(self, request: Request) -> AsyncGenerator[bytes, None]:
        async with self._http.open(request) as response:
            async for chunk in response.chunks():
                yield chunk


@define(eq=False)
class AsyncSession:
    """An open session. `info` is its state in the last response.

    As a context manager it closes the session at the end; with `keep`, it leaves the session open.
    """

    _http: Transport
    _retry: Retry
    _resume: Retry
    info: SessionInfo
    keep: bool = False

    @property
    def id(self) -> str:
        """The ID of the session."""
        return self.info.id

    @property
    def files(self) -> AsyncSessionFiles:
        """The files of the session."""
        return AsyncSessionFiles(self._http, self._retry, self.id)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.keep:
            return
        if isinstance(error, anyio.get_cancelled_exc_class()):
            with anyio.move_on_after(_CLOSE_SECONDS, shield=True):
                await close_quietly(self, after=error)
        else:
            await close_quietly(self, after=error)

    async def eval(
        self,
        code: str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 a limit of the server
        idempotency_key: str | None = None,
    ) -> Result:
        """Run code in the session, after the cells before it, and return its result.

        `Result.result` is the `repr` of the last expression, or None if its value is None. Cancelling this call
        interrupts the code; with an `idempotency_key`, it continues instead.
        """
        request = requests.evaluate(self.id, code, timeout, idempotency_key, self._retry)
        return Result.from_json(await self._http.json(request))

    def stream(
        self, code: str, *, timeout: float | None = None, idempotency_key: str | None = None
    ) -> AsyncGenerator[Event, None]:
        """Run code in the session and yield its events as they arrive; the last one is `Ended`."""
        request = requests.stream(self.id, code, timeout, idempotency_key, self._retry)
        return stream_events(self._http, request, self._resume)

    async def run(
        self,
        code: str,
        *,
        on_event: OnEvent | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 a limit of the server
        idempotency_key: str | None = None,
    ) -> Result:
        """Run code in the session, and call `on_event` with each event as it arrives."""
        events = self.stream(code, timeout=timeout, idempotency_key=idempotency_key)
        return await last_result(events, on_event)

    async def submit(
        self,
        code: str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 a limit of the server
        idempotency_key: str | None = None,
    ) -> str:
        """Queue code and return its execution ID at once. `AsyncClient.wait` returns the result."""
        key = idempotency_key or uuid.uuid4().hex
        response = await self._http.json(requests.submit(self.id, code, timeout, key, self._retry))
        execution_id = response.get("execution_id") if isinstance(response, dict) else None
        if not isinstance(execution_id, str):
            raise InvalidAnswer("invalid response from the server: execution_id is missing")
        return execution_id

    async def interrupt(self) -> bool:
        """Raise KeyboardInterrupt in the code that runs; the variables stay. Return False if none runs."""
        response = await self._http.json(requests.interrupt(self.id))
        return bool(response.get("interrupted")) if isinstance(response, dict) else False

    async def restart(self) -> SessionInfo:
        """Start a new interpreter. The files stay, and the variables are lost."""
        return self._set(await self._http.json(requests.restart(self.id)))

    async def refresh(self) -> SessionInfo:
        """Return the current state of the session."""
        return self._set(await self._http.json(requests.get(self.id, self._retry)))

    async def close(self) -> SessionInfo:
        """Close the session, end its cells and delete its files."""
        return self._set(await self._http.json(requests.close(self.id, self._retry)))

    def _set(self, data: object) -> SessionInfo:
        self.info = SessionInfo.from_json(data)
        return self.info


async def close_quietly(session: AsyncSession, after: BaseException | None = None) -> None:
    """Close the session, unless it is closed already.

    `after` is the error that ended its block. A failure to close does not replace that error, but is a note on it.
    """
    try:
        await session.close()
    except (NotFound, SessionClosed):
        return
    except PyexecError as error:
        if after is None:
            raise
        after.add_note(f"session {session.id} was not closed: {error}")


def infos_from_json(data: Any) -> builtins.list[SessionInfo]:
    """Convert a response with a list of sessions."""
    with reading("a list of sessions", data):
        return [SessionInfo.from_json(each) for each in data["sessions"]]
