"""The requests of callers, and the archives that they send."""

from collections.abc import AsyncIterator

import anyio
import anyio.lowlevel
from attrs import define

from pyexec.domain.tenants import DEFAULT_TENANT
from tests.support.archives import script

GOOD = script("print('hello')")
BAD = GOOD[: len(GOOD) // 2]


@define(eq=False)
class Request:
    """One caller's request and its outcome."""

    token: str
    sync: bool
    key: str | None
    package: str | None = None
    image: str | None = None
    tenant: str = DEFAULT_TENANT
    execution_id: str | None = None
    error: BaseException | None = None
    accepted: bool = False
    done: bool = False
    _scope: anyio.CancelScope | None = None
    _hung_up: bool = False

    def scope(self) -> anyio.CancelScope:
        """Return the cancel scope of the request's handler."""
        self._scope = anyio.CancelScope()
        if self._hung_up:
            self._scope.cancel()
        return self._scope

    def hang_up(self) -> None:
        """Disconnect the caller."""
        self._hung_up = True
        if self._scope is not None:
            self._scope.cancel()


async def pieces(archive: bytes) -> AsyncIterator[bytes]:
    """Yield an archive in two chunks."""
    half = len(archive) // 2
    for piece in (archive[:half], archive[half:]):
        await anyio.lowlevel.checkpoint()
        yield piece
