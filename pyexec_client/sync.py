"""The synchronous client. It runs an AsyncClient on an event loop in a background thread."""

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


def _blocking(
    method: Callable[Concatenate[AsyncClient, P], Awaitable[T]],
) -> Callable[Concatenate[Client, P], T]:
    """Convert a coroutine method of AsyncClient to a blocking method."""

    @wraps(method)
    def call(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._wait_for(partial(method, self._client, *args, **kwargs))

    return call


def _iterating(
    method: Callable[Concatenate[AsyncClient, P], AsyncGenerator[T, None]],
) -> Callable[Concatenate[Client, P], Generator[T, None, None]]:
    """Convert an async generator method of AsyncClient to a generator method."""

    @wraps(method)
    def call(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> Generator[T, None, None]:
        return self._iterate(partial(method, self._client, *args, **kwargs))

    return call


class Client:
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
        self._client = AsyncClient(base_url, token, retry=retry, resume=resume)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._portal: Future[BlockingPortal] = Future()

    submit = _blocking(AsyncClient.submit)
    eval = _blocking(AsyncClient.eval)
    get = _blocking(AsyncClient.get)
    wait = _blocking(AsyncClient.wait)
    kill = _blocking(AsyncClient.kill)
    file = _blocking(AsyncClient.file)
    timeline = _blocking(AsyncClient.timeline)
    cluster = _blocking(AsyncClient.cluster)
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
        """Run the source and wait until it ends. `on_event` is called in the calling thread."""
        for event in self.stream(source, idempotency_key=idempotency_key, **options):
            if on_event is not None:
                on_event(event)
            if isinstance(event, Ended):
                return event.result
        raise AssertionError("an event stream ends with Ended or raises")

    def close(self) -> None:
        """Close all connections and stop the background thread."""
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

    def _start(self) -> BlockingPortal:
        with self._lock:
            if self._thread is None:
                # A daemon thread, so that a program that does not call close() can exit.
                self._thread = threading.Thread(
                    target=anyio.run, args=[_serve, self._portal], name="python-executor client", daemon=True
                )
                self._thread.start()
            return self._portal.result()

    def _wait_for(self, call: Callable[[], Awaitable[T]]) -> T:
        running = self._start().start_task_soon(call)
        try:
            return running.result()
        finally:
            running.cancel()

    def _iterate(self, call: Callable[[], AsyncGenerator[T, None]]) -> Generator[T, None, None]:
        portal = self._start()
        send, receive = anyio.create_memory_object_stream[T]()

        async def pump() -> None:  # the task that starts an async generator must also close it
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
