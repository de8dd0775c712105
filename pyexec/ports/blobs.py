"""The store of what is too large for the log."""

from collections.abc import AsyncIterator, Awaitable, Callable, Set
from typing import Protocol


class BlobStore(Protocol):
    """Bytes too large for the log, under names the caller makes: `<execution id>/<name>`.

    A name of any other form is a `ValueError`."""

    @property
    def bytes_max(self) -> int | None:
        """The largest blob it takes; None when there is no such bound."""

    async def put(self, name: str, chunks: AsyncIterator[bytes]) -> None:
        """Stores everything `chunks` yields, durably, and whole or not at all.

        Raises `TooLarge` when the store takes no blob of that size."""

    def read(self, name: str) -> AsyncIterator[bytes]:
        """The bytes of a blob in order; raises `Unavailable` when it is not there."""

    async def delete(self, name: str) -> None:
        """Removes a blob; nothing happens when it is not there."""

    async def sweep(self, alive: Set[str], exists: Callable[[str], Awaitable[bool]]) -> None:
        """Removes what was put for executions that never came to be: by replicas that are not `alive`, or, where it
        is not known by whom, more than a day ago. `exists` tells whether there is an execution of this id."""
