"""One blocking query for everybody in this process who waits for news of open executions."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import anyio

from pyexec.adapters.consul.index import UPLOADING, Complaints, read_inflight
from pyexec.adapters.consul.keys import INFLIGHT
from pyexec.adapters.consul.kv import ConsulKV, Listing
from pyexec.aio import FailureLog
from pyexec.errors import Unavailable

RETRY_SECONDS: Final = 1.0

logger = logging.getLogger(__name__)


class Waiter:
    """Somebody who waits for news of one execution."""

    def __init__(self) -> None:
        self.news = anyio.Event()

    def wake(self) -> None:
        self.news.set()
        self.news = anyio.Event()


class InflightWatch:
    """What is open, as of the latest news; `run` must run around it. `failure` says that there is none now."""

    def __init__(self, kv: ConsulKV, complaints: Complaints) -> None:
        self.index = 0
        self.lengths: Mapping[str, int] = {}
        self.failure: Unavailable | None = None
        self._kv = kv
        self._complaints = complaints
        self._changed = anyio.Event()
        self._waiters: dict[str, set[Waiter]] = {}

    async def run(self) -> None:
        """Follows the keys until cancelled."""
        asked: int | None = None
        watching = FailureLog(logger, "watching what is open in Consul")
        while True:
            try:
                if asked is None:
                    # A folder with a member in it is woken by its members only, an empty one by every write.
                    await self._kv.put(INFLIGHT, b"", index=0)
                listing = await self._kv.recurse(INFLIGHT, asked)
                watching.recovered()
            except Unavailable as error:
                watching.failed(error)
                self._fail(error)
                await anyio.sleep(RETRY_SECONDS)
                asked = None
                continue
            went_back = asked is not None and listing.index < asked
            self.take(listing, anyway=went_back or self.failure is not None)
            asked = None if went_back else listing.index

    def take(self, listing: Listing, *, anyway: bool = False) -> None:
        """Learns from a listing of the keys, unless it is older than what is known; `anyway` takes it for newer,
        as the store may have been restored."""
        self.failure = None
        if listing.index <= self.index and not anyway:
            return
        before, self.index = self.lengths, listing.index
        self.lengths = open_lengths(listing, self._complaints)
        self._changed.set()
        self._changed = anyio.Event()
        for execution_id, waiters in self._waiters.items():
            length = self.lengths.get(execution_id)
            if length is None or length != before.get(execution_id):
                for waiter in waiters:
                    waiter.wake()

    async def changed_since(self, index: int) -> None:
        """Returns once there is news after `index`; raises `Unavailable` when there can be none at present."""
        while self.index == index:
            self.check()
            await self._changed.wait()

    def check(self) -> None:
        """Raises `Unavailable` when there is no news at present."""
        if self.failure is not None:
            raise Unavailable(str(self.failure)) from self.failure

    @contextmanager
    def waiting(self, execution_id: str) -> Iterator[Waiter]:
        """Somebody who is woken at news of this execution; at all news while it is not open."""
        waiter = Waiter()
        waiters = self._waiters.setdefault(execution_id, set())
        waiters.add(waiter)
        try:
            yield waiter
        finally:
            waiters.discard(waiter)
            if not waiters:
                self._waiters.pop(execution_id, None)

    def _fail(self, error: Unavailable) -> None:
        self.failure = error
        self._changed.set()
        self._changed = anyio.Event()
        for waiters in self._waiters.values():
            for waiter in waiters:
                waiter.wake()


def open_lengths(listing: Listing, complaints: Complaints) -> Mapping[str, int]:
    """The open executions and the lengths of their logs; an upload is none yet."""
    inflight = read_inflight(listing.entries, complaints)
    return {execution_id: i.length for execution_id, i in inflight.items() if i.state != UPLOADING}
