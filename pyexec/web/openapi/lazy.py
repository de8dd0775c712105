"""Build the OpenAPI document at its first use."""

from collections.abc import Callable
from typing import Any

import anyio
from anyio import to_thread
from attrs import define, field


@define
class LazyDocument:
    """The OpenAPI document, built in a thread at the first use.

    Most servers never need it, and building it takes a tenth of the processor time of a start (2026-11-27)."""

    _build: Callable[[], dict[str, Any]]
    _document: dict[str, Any] | None = None
    _building: anyio.Lock = field(factory=anyio.Lock)

    async def get(self) -> dict[str, Any]:
        """Return the document. Callers share it and must not change it."""
        async with self._building:
            if self._document is None:
                self._document = await to_thread.run_sync(self._build)
            return self._document
