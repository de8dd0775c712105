"""A streamed response that counts its body."""

from aiohttp import web


class CountedResponse(web.StreamResponse):
    """Counts the bytes of the body that have been sent: aiohttp counts headers and chunk sizes too."""

    body_bytes = 0

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send a part of the body."""
        await super().write(data)
        self.body_bytes += len(data)
