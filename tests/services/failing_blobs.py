"""A blob store that fails."""

from collections.abc import AsyncIterator, Awaitable, Callable, Set

import anyio
from attrs import define, field

from pyexec.errors import Unavailable


@define
class FailingBlobs:
    """A blob store that is full, or hangs, as long as `broken` is set."""

    hangs: bool = False
    broken: bool = True
    stored: dict[str, bytes] = field(factory=dict)
    bytes_max: int | None = None

    async def put(self, name: str, chunks: AsyncIterator[bytes]) -> None:
        data = b"".join([chunk async for chunk in chunks])
        if self.broken and self.hangs:
            await anyio.sleep_forever()
        if self.broken:
            raise Unavailable("no space left on device")
        self.stored[name] = data

    async def read(self, name: str) -> AsyncIterator[bytes]:
        yield self.stored[name]

    async def delete(self, name: str) -> None:
        self.stored.pop(name, None)

    async def sweep(self, alive: Set[str], exists: Callable[[str], Awaitable[bool]]) -> None:
        raise NotImplementedError
