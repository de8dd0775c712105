"""The body of a request that carries code: metadata first, so that the server can stream what follows."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
from attrs import define, field

from .source import Archive


@define
class Upload:
    """One sending of a body. `problem` is what went wrong while the archive was being made, on this side."""

    archive: Archive
    metadata: Mapping[str, Any]
    problem: OSError | ValueError | None = field(default=None, init=False)

    def form(self) -> aiohttp.FormData:
        """The multipart form, of unknown length: it is sent in chunks, and never held as a whole."""
        form = aiohttp.FormData(default_to_multipart=True)
        form.add_field("metadata", json.dumps(self.metadata), content_type="application/json")
        form.add_field("tar", self._chunks(), filename="input.tar", content_type="application/x-tar")
        return form

    async def _chunks(self) -> AsyncIterator[bytes]:
        # aiohttp reports any failure of a body as a broken connection: the cause is kept here for the caller.
        try:
            async for chunk in self.archive.chunks():
                yield chunk
        except (OSError, ValueError) as problem:
            self.problem = problem
            raise
