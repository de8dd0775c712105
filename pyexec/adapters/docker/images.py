"""The images of the Docker engine, and the directories that they declare as volumes."""

import json
import posixpath
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final

import aiohttp
from aiodocker import Docker
from aiodocker.exceptions import DockerError
from attrs import define, field, frozen

from pyexec.adapters.docker.client import (
    MESSAGE_LENGTH_MAX,
    get,
    has_status,
    parse_time,
    post,
    translate,
    translate_errors,
)
from pyexec.errors import EngineError, ImageUnavailable, Unavailable, shorten
from pyexec.ports import Image

_NOT_FOUND = (
    "not found",
    "manifest unknown",
    "does not exist",
    "pull access denied",
    "repository name not known",
)
_REGISTRY_UNREACHABLE = (
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
_MESSAGE_BYTES_MAX: Final = 64 * 1024
"""The server reads about this much of a response with an error."""
_OTHER_ARCHITECTURE = "no matching manifest"
_IGNORED = frozenset({"Downloading", "Extracting", "Waiting", "Verifying Checksum"})
"""States of a layer that are reported many times a second, or say nothing."""


class DockerImages:
    """`ports.Images` on a Docker daemon."""

    def __init__(self, docker: Docker) -> None:
        self._docker = docker

    async def find(self, name: str) -> Image | None:
        try:
            with translate_errors():
                return _image(await self._docker.images.inspect(name))
        except EngineError as error:
            if has_status(error, [HTTPStatus.BAD_REQUEST]):
                raise ImageUnavailable(f"{name!r} is not a valid image name: {error}") from error
            if not has_status(error, [HTTPStatus.NOT_FOUND]):
                raise
            return None

    async def pull(self, name: str) -> AsyncIterator[str]:
        """Implement `ports.Images.pull`.

        Docker ends a pull when the connection is closed. aiodocker leaves it open if its caller is cancelled."""
        has_tag = ":" in name.rpartition("/")[2] or "@" in name
        params = {"fromImage": name} if has_tag else {"fromImage": name, "tag": "latest"}
        try:
            async with await post(self._docker, "images/create", params) as response:
                if response.status != HTTPStatus.OK:
                    raise _unavailable(name, await _message_of(response))
                async for text in response.content:
                    progress = json.loads(text)
                    if message := progress.get("error"):
                        raise _unavailable(name, str(message))
                    if line := _progress_line(progress):
                        yield line
        except DockerError as error:
            raise translate(error, name) from error
        except aiohttp.ClientConnectorError as error:
            raise Unavailable(f"Docker does not answer: {error}") from error
        except aiohttp.ClientError as error:
            raise Unavailable(f"the connection to Docker broke: {error}") from error
        except ValueError as error:
            raise ImageUnavailable(f"the image {name!r} cannot be pulled: {error}") from error

    async def tag(self, image_name: str, repository: str, tag: str) -> None:
        with translate_errors():
            await self._docker.images.tag(image_name, repository, tag=tag)

    async def check_pullable(self, name: str) -> None:
        """Ask the registry for an image, and pull nothing. Raises `ImageUnavailable` if it cannot be pulled."""
        with translate_errors():
            async with await get(self._docker, f"distribution/{name}/json") as response:
                if response.status != HTTPStatus.OK:
                    message = (await response.json())["message"]
                    raise ImageUnavailable(f"the registry answered: {message}")

    async def list(self, repository: str) -> Sequence[Image]:
        filters = json.dumps({"reference": [f"{repository}:*"]})
        with translate_errors():
            found = await self._docker.images.list(filters=filters)
        images = [await self.find(document["Id"]) for document in found]
        return [image for image in images if image is not None]

    async def remove(self, image: Image) -> bool:
        """Implement `ports.Images.remove`. If the image is in use, Docker refuses only to remove its last name."""
        removed = []
        try:
            with translate_errors():
                for name in image.names or [image.id]:
                    await self._docker.images.delete(name)
                    removed.append(name)
        except EngineError as error:
            if has_status(error, [HTTPStatus.CONFLICT]):
                for name in removed:
                    repository, _, tag = name.rpartition(":")
                    await self.tag(image.id, repository, tag)
                return False
            if not has_status(error, [HTTPStatus.NOT_FOUND]):
                raise
        return True


def _image(document: Mapping[str, Any]) -> Image:
    digests = document.get("RepoDigests") or ()
    created = _time_or_epoch(document["Created"])
    named = _time_or_epoch((document.get("Metadata") or {}).get("LastTagTime") or "")
    return Image(
        id=document["Id"],
        digest=digests[0].partition("@")[2] if digests else document["Id"],
        names=document.get("RepoTags") or (),
        size_bytes=document["Size"],
        architecture=document["Architecture"],
        created_at=created,
        used_at=max(created, named),
        python=_python_version((document.get("Config") or {}).get("Env") or ()),
    )


def _python_version(variables: Sequence[str]) -> str | None:
    """Return the version of Python in the environment of an image; None if there is none."""
    prefix = "PYTHON_VERSION="
    return next((each.removeprefix(prefix) for each in variables if each.startswith(prefix)), None)


def _time_or_epoch(text: str) -> datetime:
    """Parse a time; the Unix epoch if Docker does not know it, which it writes as the year 1 or not at all."""
    epoch = datetime.fromtimestamp(0, UTC)
    return max(parse_time(text) or epoch, epoch)


def _progress_line(progress: Mapping[str, Any]) -> str:
    status, layer = str(progress.get("status", "")), progress.get("id")
    if status in _IGNORED:
        return ""
    return f"{layer}: {status}" if layer else status


async def _message_of(response: aiohttp.ClientResponse) -> str:
    """Return the message of an error. Docker passes on what the registry has answered, whatever its size."""
    data = b""
    async for chunk in response.content.iter_chunked(_MESSAGE_BYTES_MAX):
        data += chunk
        if len(data) > _MESSAGE_BYTES_MAX:
            break
    try:
        return str(json.loads(data)["message"])
    except (ValueError, TypeError, KeyError):
        return data.decode("utf-8", "replace")


def _unavailable(name: str, message: str) -> ImageUnavailable:
    """Return an error that names the cause: the image name, the registry, or the machine."""
    message = shorten(message, MESSAGE_LENGTH_MAX)
    lowered = message.lower()
    if _OTHER_ARCHITECTURE in lowered:
        return ImageUnavailable(
            f"the image {name!r} does not support the architecture of this machine: {message}"
        )
    if any(sign in lowered for sign in _REGISTRY_UNREACHABLE):
        return ImageUnavailable(f"the registry of the image {name!r} does not answer: {message}")
    if any(sign in lowered for sign in _NOT_FOUND):
        return ImageUnavailable(f"the image {name!r} does not exist, or needs a login: {message}")
    return ImageUnavailable(f"the image {name!r} cannot be pulled: {message}")


VOLUMES_MAX: Final = 16
_KNOWN_MAX: Final = 1000
_SYSTEM: Final = ("/proc", "/sys", "/dev")
_FILES: Final = ("/etc/passwd", "/etc/group", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
"""Files that the server or Docker mounts in every sandbox. A directory cannot be mounted there."""


@frozen
class ImageVolumes:
    """The id of an image, and the normalized paths of its volumes."""

    image_id: str
    paths: tuple[str, ...]


@define(eq=False)
class VolumesOfImages:
    """Asks the engine once for the volumes of each image.

    Docker creates a volume on the engine's disk for each of them, without a limit on its size. Sandboxes mount a small
    file system in memory there instead (see config.py)."""

    _docker: Docker
    _known: dict[str, ImageVolumes] = field(factory=dict)

    async def find(self, image: str) -> ImageVolumes:
        """Return the volumes of an image, by its name or id.

        Raises `ImageUnavailable` if the image does not exist, or has volumes that sandboxes do not support."""
        found = self._known.get(image)
        if found is None:
            with translate_errors(image=image):
                document = await self._docker.images.inspect(image)
            declared = (document.get("Config") or {}).get("Volumes") or ()
            found = ImageVolumes(document["Id"], check_volumes(image, declared))
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            if image == found.image_id:  # a name can get another image later
                self._known[image] = found
        return found


def check_volumes(image: str, declared: Iterable[str]) -> tuple[str, ...]:
    """Return the paths, normalized. Raise `ImageUnavailable` if sandboxes do not support them."""
    paths = tuple(sorted({posixpath.normpath(f"/{path.lstrip('/')}") for path in declared}))
    if len(paths) > VOLUMES_MAX:
        raise ImageUnavailable(
            f"the image {image!r} declares {len(paths)} volumes; sandboxes support at most {VOLUMES_MAX}"
        )
    # Docker does not see that a file system is mounted at the path `/data` of a volume `data`, and creates the volume
    # nevertheless. Links in the image can then make both appear at different places.
    relative = [path for path in declared if not path.startswith("/")]
    for path in (*relative, *paths):
        if path in (*relative, "/", *_FILES) or f"/{path.split('/')[1]}" in _SYSTEM:
            raise ImageUnavailable(
                f"the image {image!r} declares {path} as a volume; sandboxes do not support that"
            )
    return paths
