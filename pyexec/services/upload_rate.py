"""The minimum speed of an upload that holds a slot or a session's memory while it arrives."""

from collections.abc import AsyncIterator

import anyio

from pyexec.errors import InvalidRequest

GRACE_SECONDS = 60.0
BYTES_PER_SECOND_MIN = 16 * 1024


async def reject_slow(chunks: AsyncIterator[bytes], advice: str = "") -> AsyncIterator[bytes]:
    """Yield the chunks. Raise `InvalidRequest` if they take over `GRACE_SECONDS` longer than at the minimum speed.

    Without this limit, a client that sends a few bytes a minute could hold a slot forever. Only the time spent waiting
    for the client counts, not the time in which the consumer handles a chunk. `advice` ends the error message."""
    received, waited = 0, 0.0
    asked_at = anyio.current_time()
    async for chunk in chunks:
        received += len(chunk)
        waited += anyio.current_time() - asked_at
        if waited > GRACE_SECONDS + received / BYTES_PER_SECOND_MIN:
            raise InvalidRequest(
                f"the upload is too slow: {received} bytes in {waited:.0f} s; after the first {GRACE_SECONDS:g} s, "
                f"{BYTES_PER_SECOND_MIN // 1024} KiB/s must arrive on average{advice}",
                code="upload_too_slow",
            )
        yield chunk
        asked_at = anyio.current_time()
