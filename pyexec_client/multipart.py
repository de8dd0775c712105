"""The multipart body of an upload. The metadata comes first, so that the server can stream the archive."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
from attrs import define, field

from .arguments import chunk_of_bytes
from .source import Archive


@define
class Upload:
    """One attempt to send a body. `error` is set if building the archive fails."""

    archive: Archive
    metadata: Mapping[str, Any]
    error: Exception | None = field(default=None, init=False)

    def form(self) -> aiohttp.FormData:
        """Return the multipart form. It is sent in chunks and never held in memory as a whole."""
        form = aiohttp.FormData(default_to_multipart=True)
        form.add_field("metadata", json.dumps(self.metadata), content_type="application/json")
        form.add_field("tar", self._chunks(), filename="input.tar", content_type="application/x-tar")
        return form

    async def _chunks(self) -> AsyncIterator[bytes]:
        # aiohttp reports any failure of a body as a lost connection, so keep the cause for the caller.
        try:
            async for chunk in self.archive.chunks():
                yield chunk_of_bytes(chunk)
        except Exception as error:
            self.error = error
            raise
