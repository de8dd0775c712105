"""Sessions of the synchronous client."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Self

from .events import Ended, Event
from .portal import Blocking, blocking, iterating
from .result import Result
from .session import AsyncSession, AsyncSessionFiles, SessionInfo, close_quietly


class SessionFiles(Blocking[AsyncSessionFiles]):
    """The files below /work of a session, with the methods of AsyncSessionFiles but no `await`."""

    upload = blocking(AsyncSessionFiles.upload)
    download = iterating(AsyncSessionFiles.download)
    read = blocking(AsyncSessionFiles.read)
    delete = blocking(AsyncSessionFiles.delete)
    list = blocking(AsyncSessionFiles.list)
    download_tar = iterating(AsyncSessionFiles.download_tar)


class Session(Blocking[AsyncSession]):
    """An open session, with the methods of AsyncSession but no `await`.

    As a context manager it closes the session at the end, if `Client.open_session` has opened it.
    """

    eval = blocking(AsyncSession.eval)
    stream = iterating(AsyncSession.stream)
    submit = blocking(AsyncSession.submit)
    interrupt = blocking(AsyncSession.interrupt)
    restart = blocking(AsyncSession.restart)
    refresh = blocking(AsyncSession.refresh)
    close = blocking(AsyncSession.close)

    @property
    def id(self) -> str:
        """The ID of the session."""
        return self._target.id

    @property
    def info(self) -> SessionInfo:
        """The state of the session in the last response."""
        return self._target.info

    @property
    def files(self) -> SessionFiles:
        """The files of the session."""
        return SessionFiles(self._portal, self._target.files)

    def run(
        self,
        code: str,
        *,
        on_event: Callable[[Event], object] | None = None,
        timeout: float | None = None,
        idempotency_key: str | None = None,
    ) -> Result:
        """Run code in the session, and call `on_event` with each event, in the calling thread."""
        for event in self.stream(code, timeout=timeout, idempotency_key=idempotency_key):
            if on_event is not None:
                on_event(event)
            if isinstance(event, Ended):
                return event.result
        raise AssertionError("an event stream ends with Ended or raises")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._target.keep:
            self._portal.wait_for(partial(close_quietly, self._target, after=error))
