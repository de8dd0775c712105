"""The thread that works with the store of the embedded log."""

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

import anyio
import anyio.lowlevel
from attrs import frozen

from pyexec.adapters.sqlite.store import SqliteStore, translate_errors
from pyexec.errors import Unavailable

T = TypeVar("T")


@frozen
class _Call:
    work: Callable[[SqliteStore], Any]
    then: Callable[[Any], object] | None
    returned: asyncio.Future[Any]


class StoreThread:
    """Calls functions with the store, one at a time and in order. A thread of anyio's pool costs twice as much."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._calls = SimpleQueue[_Call | None]()
        self._closed = False
        threading.Thread(target=self._serve, name="event log", daemon=True).start()

    async def run(self, work: Callable[[SqliteStore], T], then: Callable[[T], object] | None = None) -> T:
        """Call `work` in the thread and return its result. Cancellation does not interrupt it.

        Before this returns, call `then` with the result in the event loop, even if asyncio cancels the caller. Calls
        of `then` have the order of the calls of `work`."""
        await anyio.lowlevel.checkpoint_if_cancelled()
        returned = self.start(work, then)
        with anyio.CancelScope(shield=True):
            result: T = await returned
        return result

    def start(
        self, work: Callable[[SqliteStore], T], then: Callable[[T], object] | None = None
    ) -> asyncio.Future[T]:
        """Call `work` in the thread without waiting for it, and `then` as `run` does. Return a future of the result.

        Raises `Unavailable` if the store is closed."""
        if self._closed:
            raise Unavailable("the event log is closed")
        call = _Call(work, then, self._loop.create_future())
        self._calls.put(call)
        return call.returned

    async def close(self) -> None:
        """Close the store after the calls before, and end the thread."""
        try:
            await self.run(SqliteStore.close)
        finally:
            self._closed = True
            self._calls.put(None)

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            result, failure = None, None
            try:
                with translate_errors():
                    result = call.work(self._store)
            except Exception as error:  # noqa: BLE001  raised in the caller
                failure = error
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(_return, call, result, failure)


def _return(call: _Call, result: Any, failure: Exception | None) -> None:
    """Return to the caller first: it records its events before the tasks that `then` wakes look for them."""
    if not call.returned.done():
        if failure is None:
            call.returned.set_result(result)
        else:
            call.returned.set_exception(failure)
    if failure is None and call.then is not None:
        call.then(result)
