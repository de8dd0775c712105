"""Call asynchronous methods from synchronous code, on an event loop in a background thread."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from concurrent.futures import CancelledError, Future
from contextlib import aclosing
from functools import partial, wraps
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

import anyio
from anyio.from_thread import BlockingPortal

from .errors import ClientClosed
from .fork import reset_after_fork

P = ParamSpec("P")
T = TypeVar("T")
A = TypeVar("A")

_CLOSED = "the client was closed during the call"


class Portal:
    """The event loop, which starts with the first call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._portal: Future[BlockingPortal] = Future()
        self._running: set[Future[Any]] = set()
        self._is_closed = False
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Forget the thread, which runs only in the parent process."""
        self._lock = threading.Lock()
        self._thread, self._portal, self._running = None, Future(), set()

    def stop(self, last: Callable[[], Awaitable[None]]) -> None:
        """Cancel the running calls, make the last call and stop the thread. A later call raises ClientClosed."""
        with self._lock:
            self._is_closed = True
            thread, self._thread = self._thread, None
            if thread is None:
                return
            portal = self._portal.result()
        for running in self._running.copy():
            running.cancel()
        portal.call(last)
        portal.start_task_soon(portal.stop, True)
        thread.join()

    def check_open(self) -> None:
        """Raise ClientClosed if `stop` was called."""
        if self._is_closed:
            raise ClientClosed("the client is closed; create another one")

    def wait_for(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call and return its result. An exception in this thread cancels the call."""
        return self._result(self._start(), call)

    def _result(self, portal: BlockingPortal, call: Callable[[], Awaitable[T]]) -> T:
        running = self._begin(portal, call)
        try:
            return running.result()
        except CancelledError:
            raise ClientClosed(_CLOSED) from None
        finally:
            self._running.discard(running)
            running.cancel()

    def _begin(self, portal: BlockingPortal, call: Callable[[], Awaitable[T]]) -> Future[T]:
        try:
            running = portal.start_task_soon(call)
        except RuntimeError as error:  # the portal was stopped
            raise ClientClosed(_CLOSED) from error
        self._running.add(running)
        return running

    def iterate(self, call: Callable[[], AsyncGenerator[T, None]]) -> Generator[T, None, None]:
        """Yield the items of an asynchronous generator."""
        portal = self._start()
        send, receive = anyio.create_memory_object_stream[T]()

        async def pump() -> None:  # the task that starts an async generator must also close it
            async with send, aclosing(call()) as items:
                async for item in items:
                    await send.send(item)

        running = self._begin(portal, pump)
        try:
            while True:
                try:
                    item = self._result(portal, receive.receive)
                except anyio.EndOfStream:
                    break
                yield item
            running.result()
        except CancelledError:
            raise ClientClosed(_CLOSED) from None
        finally:
            self._running.discard(running)
            running.cancel()
            try:
                portal.call(receive.aclose)
            except (RuntimeError, CancelledError):  # the portal was stopped, or is stopping
                receive.close()

    def _start(self) -> BlockingPortal:
        with self._lock:
            self.check_open()
            if self._thread is None:
                # A daemon thread, so that a program that does not call close() can exit.
                self._thread = threading.Thread(
                    target=anyio.run, args=[_serve, self._portal], name="python-executor client", daemon=True
                )
                self._thread.start()
            return self._portal.result()


class Blocking(Generic[A]):
    """Base class of an object whose methods call those of an asynchronous one."""

    def __init__(self, portal: Portal, target: A) -> None:
        self._portal = portal
        self._target = target


def blocking(
    method: Callable[Concatenate[A, P], Awaitable[T]],
) -> Callable[Concatenate[Blocking[A], P], T]:
    """Convert a coroutine method to a blocking method."""

    @wraps(method)
    def call(self: Blocking[A], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._portal.wait_for(partial(method, self._target, *args, **kwargs))

    return call


def iterating(
    method: Callable[Concatenate[A, P], AsyncGenerator[T, None]],
) -> Callable[Concatenate[Blocking[A], P], Generator[T, None, None]]:
    """Convert an async generator method to a generator method."""

    @wraps(method)
    def call(self: Blocking[A], /, *args: P.args, **kwargs: P.kwargs) -> Generator[T, None, None]:
        return self._portal.iterate(partial(method, self._target, *args, **kwargs))

    return call


async def _serve(ready: Future[BlockingPortal]) -> None:
    async with BlockingPortal() as portal:
        ready.set_result(portal)
        await portal.sleep_until_stopped()
