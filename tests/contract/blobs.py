"""The content of blobs, and sources of it."""

from collections.abc import AsyncIterator

from pyexec.ports import BlobStore


async def stream(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def content(blobs: BlobStore, name: str) -> bytes:
    return b"".join([chunk async for chunk in blobs.read(name)])


class SourceBroke(OSError):
    """An error of the source of an upload, such as a broken connection. The store must not translate it."""
