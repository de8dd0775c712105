"""The synchronous client. It runs an AsyncClient on an event loop in a background thread."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Self, Unpack

from .client import AsyncClient
from .events import Ended, Event
from .options import RunOptions, SessionOptions
from .portal import Blocking, Portal, blocking, iterating
from .result import Result
from .retry import Retry
from .session_block import SessionBlock
from .source import Source
from .sync_session import Session


class Client(Blocking[AsyncClient]):
    """Run Python code on a python-executor server, with AsyncClient's methods and arguments but no `await`.

    Threads may share a client. An exception during a call, such as KeyboardInterrupt, cancels the call. To stop
    a loop over `stream`, `map` or `events` early, use `contextlib.closing`.

        with Client("http://localhost:8080") as client:
            print(client.run("print(6 * 7)").stdout)
    """

    def __init__(
        self,
        base_url: str = "http://localhost:8080",
        token: str | None = None,
        *,
        retry: Retry = Retry(),  # noqa: B008 frozen
        resume: Retry = Retry(attempts=10, longest=5.0),  # noqa: B008 frozen
    ) -> None:
        super().__init__(Portal(), AsyncClient(base_url, token, retry=retry, resume=resume))

    submit = blocking(AsyncClient.submit)
    eval = blocking(AsyncClient.eval)
    get = blocking(AsyncClient.get)
    wait = blocking(AsyncClient.wait)
    kill = blocking(AsyncClient.kill)
    file = blocking(AsyncClient.file)
    timeline = blocking(AsyncClient.timeline)
    cluster = blocking(AsyncClient.cluster)
    stream = iterating(AsyncClient.stream)
    map = iterating(AsyncClient.map)
    list = iterating(AsyncClient.list)
    logs = iterating(AsyncClient.logs)
    files = iterating(AsyncClient.files)
    events = iterating(AsyncClient.events)
    sessions = blocking(AsyncClient.sessions)

    def run(
        self,
        source: Source,
        *,
        on_event: Callable[[Event], object] | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[RunOptions],
    ) -> Result:
        """Run the source and wait until it ends. `on_event` is called in the calling thread."""
        for event in self.stream(source, idempotency_key=idempotency_key, **options):
            if on_event is not None:
                on_event(event)
            if isinstance(event, Ended):
                return event.result
        raise AssertionError("an event stream ends with Ended or raises")

    def session(self, source: Source | None = None, **options: Unpack[SessionOptions]) -> SessionBlock:
        """Open a session and close it at the end of the `with` block."""
        return SessionBlock(partial(self.open_session, source, **options))

    def open_session(self, source: Source | None = None, **options: Unpack[SessionOptions]) -> Session:
        """Open a session that stays open until it is closed, or until a timeout of the session."""
        opened = self._portal.wait_for(partial(self._target.open_session, source, **options))
        return Session(self._portal, opened)

    def get_session(self, session_id: str) -> Session:
        """Return an existing session. As a context manager, it leaves the session open."""
        return Session(self._portal, self._portal.wait_for(partial(self._target.get_session, session_id)))

    def close(self) -> None:
        """Close all connections and stop the background thread. A later call raises ClientClosed."""
        self._portal.stop(self._target.close)

    def __enter__(self) -> Self:
        self._portal.check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
