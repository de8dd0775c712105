"""Building blocks for asynchronous code: wake all waiters, take turns, retry until an operation succeeds, set a timer,
log an outage once, wait for a call that may hang."""

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import anyio
import anyio.lowlevel
from attrs import define

from pyexec.errors import ExecutorError, ShuttingDown, Unavailable

K = TypeVar("K")
T = TypeVar("T")


class Broadcast:
    """Wakes every waiting task each time the state that it stands for has changed.

    Use it without losing a change: call `next_event()`, read the state, then wait for that event."""

    def __init__(self) -> None:
        self._event: anyio.Event | None = None
        """The event of those that wait; None if there are none."""

    def notify_all(self) -> None:
        """Wake all tasks that wait now."""
        event, self._event = self._event, None
        if event is not None:
            event.set()

    def next_event(self) -> anyio.Event:
        """Return the event that the next `notify_all` sets."""
        if self._event is None:
            self._event = anyio.Event()
        return self._event

    async def wait(self) -> None:
        """Wait for the next `notify_all`."""
        await self.next_event().wait()


class Turns:
    """Lets many tasks take turns with work that takes a millisecond or so, one in each cycle of the event loop.

    Without turns, each cycle takes as long as the work of all of them, and delays all other tasks."""

    def __init__(self) -> None:
        self._lock = anyio.Lock()

    async def iterate(self, items: Iterator[T]) -> AsyncIterator[T]:
        """Yield the items. Wait for a turn before each one, and before the end."""
        while True:
            async with self._lock:
                await anyio.lowlevel.checkpoint()
            try:
                item = next(items)
            except StopIteration:
                return
            yield item


@contextmanager
def registered(groups: dict[K, set[T]], key: K, item: T) -> Iterator[T]:
    """Keep `item` in the set of this key while the body runs. `groups` has no empty sets."""
    group = groups.setdefault(key, set())
    group.add(item)
    try:
        yield item
    finally:
        group.discard(item)
        if not group:
            groups.pop(key, None)


@define
class FailureLog:
    """Logs an outage once when it begins and once when it ends, however many retries fail in between.

    `activity` completes the sentence "... failed; retrying", such as "reading the inbox"."""

    logger: logging.Logger
    activity: str
    failing: bool = False

    def failed(self, error: ExecutorError) -> None:
        """Record that an attempt failed. The first failure of an outage is logged."""
        if not self.failing:
            self.logger.warning("%s failed; retrying: %s", self.activity, error)
        self.failing = True

    def recovered(self) -> None:
        """Record that an attempt succeeded. The first success after an outage is logged."""
        if self.failing:
            self.logger.info("%s succeeded again", self.activity)
        self.failing = False


async def retry(
    operation: Callable[[], Awaitable[T]],
    failures: FailureLog,
    *,
    seconds: float = 1.0,
    errors: type[ExecutorError] | tuple[type[ExecutorError], ...] = Unavailable,
) -> T:
    """Call `operation` until it does not raise one of `errors`, with a pause of `seconds` after each failure.

    Return its result. Any other exception is raised at once."""
    while True:
        try:
            result = await operation()
        except errors as error:
            failures.failed(error)
            await anyio.sleep(seconds)
        else:
            failures.recovered()
            return result


@contextmanager
def call_after(seconds: float, function: Callable[[], object]) -> Iterator[None]:
    """Call `function` after this time, unless the block ends before. A task that waits costs twenty times as much."""
    timer = asyncio.get_running_loop().call_later(seconds, function)
    try:
        yield
    finally:
        timer.cancel()


class SingleFlight:
    """Shares a call that may hang, such as one to a disk, among its callers: at most one call runs at a time.

    `start` starts a call. Callers that arrive while it runs wait for its result. Cancelling a caller ends only its
    wait."""

    def __init__(self, start: Callable[[], asyncio.Future[Any]]) -> None:
        self._start = start
        self._call: asyncio.Future[Any] | None = None

    async def wait(self) -> None:
        """Wait for the running call; start one if none is running. Raises what the call raises."""
        if self._call is None or self._call.done():
            self._call = self._start()
            self._call.add_done_callback(asyncio.Future.exception)  # no warning if no caller waits any more
        await asyncio.shield(self._call)


def start_daemon_thread(function: Callable[[], object], name: str) -> asyncio.Future[object]:
    """Call `function` in a new thread. Return a future of its result. The process can end while the call hangs."""
    returned = concurrent.futures.Future[object]()

    def call() -> None:
        try:
            returned.set_result(function())
        except Exception as error:  # noqa: BLE001  raised in the event loop
            returned.set_exception(error)

    threading.Thread(target=call, name=name, daemon=True).start()
    return asyncio.wrap_future(returned)


class ShutdownGuard:
    """Lets sections that must not be interrupted finish before shutdown, and prevents new ones."""

    def __init__(self) -> None:
        self._in_flight = 0
        self._section_left = Broadcast()
        self.closed = False

    @contextmanager
    def section(self) -> Iterator[None]:
        """Enter a section. Raises `ShuttingDown` after `close`."""
        if self.closed:
            raise ShuttingDown
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1
            self._section_left.notify_all()

    def close(self) -> None:
        """Reject new sections from now on."""
        self.closed = True

    async def drained(self) -> None:
        """Wait until no task is inside a section."""
        while self._in_flight:
            await self._section_left.wait()
