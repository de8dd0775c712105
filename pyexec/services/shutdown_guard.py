"""The steps that must not be cut in two by the end of the server."""

from collections.abc import Iterator
from contextlib import contextmanager

import anyio

from pyexec.errors import Unavailable


class InFlightGuard:
    """Counts the steps from what the log is told to what is done about it, and lets no new one begin once closed."""

    def __init__(self) -> None:
        self._count = 0
        self._one_over = anyio.Event()
        self.closed = False

    @contextmanager
    def section(self) -> Iterator[None]:
        """Around one step; raises `Unavailable` after `close`."""
        if self.closed:
            raise Unavailable("this server is stopping; send the request again, it will reach another one")
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1
            over, self._one_over = self._one_over, anyio.Event()
            over.set()

    def close(self) -> None:
        """From now on nothing begins."""
        self.closed = True

    async def drained(self) -> None:
        """Returns when nothing is in the middle of its step."""
        while self._count:
            await self._one_over.wait()
