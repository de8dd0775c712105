"""The engine's images: found, pulled, named, listed, removed."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import aiohttp
from aiodocker import Docker
from aiodocker.exceptions import DockerError

from pyexec.adapters.docker.clock import moment
from pyexec.adapters.docker.errors import CANNOT_CONNECT, error_of, has_status, translated
from pyexec.errors import EngineError, ImageUnavailable, Unavailable
from pyexec.ports import Image

_NOT_THERE = (
    "not found",
    "manifest unknown",
    "does not exist",
    "pull access denied",
    "repository name not known",
)
_REGISTRY_AWAY = (
    "connection refused",
    "no such host",
    "timeout",
    "deadline exceeded",
    "eof",
    "unreachable",
    "x509",
    "tls",
    "server misbehaving",
    "temporary failure",
)
_OTHER_ARCHITECTURE = "no matching manifest"
_QUIET = frozenset({"Downloading", "Extracting", "Waiting", "Verifying Checksum"})
"""States of a layer that come many times a second, or tell nothing."""


class DockerImages:
    """`ports.Images` on a Docker daemon."""

    def __init__(self, docker: Docker) -> None:
        self._docker = docker

    async def find(self, name: str) -> Image | None:
        try:
            async with translated():
                return _image(await self._docker.images.inspect(name))
        except EngineError as error:
            if has_status(error, [HTTPStatus.BAD_REQUEST]):
                raise ImageUnavailable(f"{name!r} is no image's name: {error}") from error
            if not has_status(error, [HTTPStatus.NOT_FOUND]):
                raise
            return None

    async def pull(self, name: str) -> AsyncIterator[str]:
        try:
            async for progress in self._docker.images.pull(name, stream=True):
                if message := progress.get("error"):
                    raise _unavailable(name, str(message))
                if line := _line(progress):
                    yield line
        except DockerError as error:
            if error.status == CANNOT_CONNECT:
                raise error_of(error, name) from error
            raise _unavailable(name, str(error.message)) from error
        except aiohttp.ClientError as error:
            raise Unavailable(f"the connection to Docker broke: {error}") from error

    async def name(self, image_id: str, repository: str, tag: str) -> None:
        async with translated():
            await self._docker.images.tag(image_id, repository, tag=tag)

    async def list(self, *, label: str | None = None, repository: str | None = None) -> Sequence[Image]:
        filters = {"label": [label] if label else [], "reference": [f"{repository}:*"] if repository else []}
        wanted = json.dumps({key: values for key, values in filters.items() if values})
        async with translated():
            found = await self._docker.images.list(filters=wanted)
        images = [await self.find(document["Id"]) for document in found]
        return [image for image in images if image is not None]

    async def remove(self, image: Image) -> bool:
        try:
            async with translated():
                for name in image.names or [image.id]:
                    await self._docker.images.delete(name)
        except EngineError as error:
            if has_status(error, [HTTPStatus.CONFLICT]):
                return False
            if not has_status(error, [HTTPStatus.NOT_FOUND]):
                raise
        return True


def _image(document: Mapping[str, Any]) -> Image:
    digests = document.get("RepoDigests") or ()
    created = _since_epoch(document["Created"])
    named = _since_epoch((document.get("Metadata") or {}).get("LastTagTime") or "")
    return Image(
        id=document["Id"],
        digest=digests[0].partition("@")[2] if digests else document["Id"],
        names=document.get("RepoTags") or (),
        size_bytes=document["Size"],
        architecture=document["Architecture"],
        created_at=created,
        used_at=max(created, named),
        labels=(document.get("Config") or {}).get("Labels") or {},
    )


def _since_epoch(text: str) -> datetime:
    """A moment that the engine does not know is long ago."""
    epoch = datetime.fromtimestamp(0, UTC)
    return max(moment(text) or epoch, epoch)


def _line(progress: Mapping[str, Any]) -> str:
    status, layer = str(progress.get("status", "")), progress.get("id")
    if status in _QUIET:
        return ""
    return f"{layer}: {status}" if layer else status


def _unavailable(name: str, message: str) -> ImageUnavailable:
    """Says whose fault it is: the name's, the registry's, or the machine's."""
    told = message.lower()
    if _OTHER_ARCHITECTURE in told:
        return ImageUnavailable(f"the image {name!r} is not made for this machine's architecture: {message}")
    if any(sign in told for sign in _REGISTRY_AWAY):
        return ImageUnavailable(f"the registry of the image {name!r} does not answer: {message}")
    if any(sign in told for sign in _NOT_THERE):
        return ImageUnavailable(f"the image {name!r} does not exist, or needs a login: {message}")
    return ImageUnavailable(f"the image {name!r} cannot be pulled: {message}")
