"""Find the id of an image, and the directories that it declares as volumes.

Docker creates a volume on the engine's disk for each of them, without a limit on its size. Our containers mount a
small file system in memory there instead (see config.py)."""

import posixpath
from collections.abc import Iterable
from typing import Final

from aiodocker import Docker
from attrs import define, field, frozen

from pyexec.adapters.docker.client import translate_errors
from pyexec.errors import ImageUnavailable

VOLUMES_MAX: Final = 16
_KNOWN_MAX: Final = 1000
_SYSTEM: Final = ("/proc", "/sys", "/dev")


@frozen
class ImageVolumes:
    """The id of an image, and the normalized paths of its volumes."""

    image_id: str
    paths: tuple[str, ...]


@define(eq=False)
class VolumesOfImages:
    """Asks the engine once for each image."""

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
    for path in paths:
        if path == "/" or f"/{path.split('/')[1]}" in _SYSTEM:
            raise ImageUnavailable(
                f"the image {image!r} declares {path} as a volume; sandboxes do not support that"
            )
    return paths
