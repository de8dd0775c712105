"""The synchronous client: the asynchronous one, whose event loop runs in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from concurrent.futures import Future
from contextlib import aclosing
from functools import partial, wraps
from types import TracebackType
from typing import Concatenate, ParamSpec, Self, TypeVar, Unpack

import anyio
from anyio.from_thread import BlockingPortal

from .client import AsyncClient
from .events import Ended, Event
from .options import RunOptions
from .result import Result
from .retry import Retry
from .source import Source

P = ParamSpec("P")
T = TypeVar("T")


def _waiting(
    method: Callable[Concatenate[AsyncClient, P], Awaitable[T]],
) -> Callable[Concatenate[Client, P], T]:
    """The method of the asynchronous client that returns when it has."""

    @wraps(method)
    def call(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._wait_for(partial(method, self._client, *args, **kwargs))

    return call


def _iterating(
    method: Callable[Concatenate[AsyncClient, P], AsyncGenerator[T, None]],
) -> Callable[Concatenate[Client, P], Generator[T, None, None]]:
    """The generator of the asynchronous client, as an ordinary one."""

    @wraps(method)
    def call(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> Generator[T, None, None]:
        return self._iterate(partial(method, self._client, *args, **kwargs))

    return call


class Client:
    """Runs Python on a python-executor server: AsyncClient's methods, arguments and results, without `await`.

    It may be used by many threads at once. Leaving a loop over `stream`, `map` or `events` early, and an
    exception such as KeyboardInterrupt in any call, ends what went on there.

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
        self._client = AsyncClient(base_url, token, retry=retry, resume=resume)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._portal: Future[BlockingPortal] = Future()

    submit = _waiting(AsyncClient.submit)
    eval = _waiting(AsyncClient.eval)
    get = _waiting(AsyncClient.get)
    wait = _waiting(AsyncClient.wait)
    kill = _waiting(AsyncClient.kill)
    file = _waiting(AsyncClient.file)
    stream = _iterating(AsyncClient.stream)
    map = _iterating(AsyncClient.map)
    list = _iterating(AsyncClient.list)
    logs = _iterating(AsyncClient.logs)
    files = _iterating(AsyncClient.files)
    events = _iterating(AsyncClient.events)

    def run(
        self,
        source: Source,
        *,
        on_event: Callable[[Event], object] | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[RunOptions],
    ) -> Result:
        """Run it and wait for its end, however long; `on_event` is called in this thread."""
        for event in self.stream(source, idempotency_key=idempotency_key, **options):
            if on_event is not None:
                on_event(event)
            if isinstance(event, Ended):
                return event.result
        raise AssertionError("an event stream ends with its last event or raises")

    def close(self) -> None:
        """Close the connections, and end the thread."""
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is None:
                return
            portal, self._portal = self._portal.result(), Future()
        portal.call(self._client.close)
        portal.start_task_soon(portal.stop, True)
        thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _opened(self) -> BlockingPortal:
        with self._lock:
            if self._thread is None:
                # A daemon: a program that forgets to close us can still end.
                self._thread = threading.Thread(
                    target=anyio.run, args=[_serve, self._portal], name="python-executor client", daemon=True
                )
                self._thread.start()
            return self._portal.result()

    def _wait_for(self, call: Callable[[], Awaitable[T]]) -> T:
        running = self._opened().start_task_soon(call)
        try:
            return running.result()
        finally:
            running.cancel()

    def _iterate(self, call: Callable[[], AsyncGenerator[T, None]]) -> Generator[T, None, None]:
        portal = self._opened()
        send, receive = anyio.create_memory_object_stream[T]()

        async def pump() -> None:  # a generator is to be closed by the task that began it
            async with send, aclosing(call()) as items:
                async for item in items:
                    await send.send(item)

        running = portal.start_task_soon(pump)
        try:
            while True:
                try:
                    item = portal.call(receive.receive)
                except anyio.EndOfStream:
                    break
                yield item
            running.result()
        finally:
            running.cancel()
            portal.call(receive.aclose)


async def _serve(ready: Future[BlockingPortal]) -> None:
    async with BlockingPortal() as portal:
        ready.set_result(portal)
        await portal.sleep_until_stopped()
