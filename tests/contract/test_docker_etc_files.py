"""The volumes with files in /etc that sandboxes mount, without a Docker engine."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest
from aiodocker import Docker
from aiodocker.exceptions import DockerError
from attrs import define

from pyexec.adapters.docker.client import EtcFilesRemoved, translate
from pyexec.adapters.docker.etc_files import VOLUMES_MAX, remove_unused_volumes, volume_name

VOLUME = f"pyexec-etc-{'0123456789abcdef' * 2}"
FILE = f"/var/lib/docker/volumes/{VOLUME}/_data/passwd-1"


@define
class FakeEngine:
    """Answers like aiodocker. Volumes are named from the oldest to the newest."""

    image_ids: Sequence[str]
    names: list[str]

    @property
    def volumes(self) -> "FakeVolumes":
        return FakeVolumes(self.names)

    @property
    def images(self) -> "FakeImages":
        return FakeImages(self.image_ids)


@define
class FakeImages:
    ids: Sequence[str]

    async def list(self, **_: object) -> Sequence[Mapping[str, Any]]:
        return [{"Id": image} for image in self.ids]


@define
class FakeVolumes:
    names: list[str]

    async def list(self, **_: object) -> Mapping[str, Any]:
        volumes = [
            {"Name": name, "CreatedAt": f"2026-01-01T00:00:{index:06}Z"}
            for index, name in enumerate(self.names)
        ]
        return {"Volumes": volumes}

    async def get(self, name: str) -> "FakeVolume":
        return FakeVolume(self.names, name)


@define
class FakeVolume:
    names: list[str]
    name: str

    async def delete(self) -> None:
        self.names.remove(self.name)


def ids(count: int) -> list[str]:
    return [f"sha256:{number:032x}{number:032x}" for number in range(count)]


@pytest.mark.parametrize(
    ("volumes", "images", "kept"), [(150, 150, 150), (150, 30, 30), (VOLUMES_MAX, 1, VOLUMES_MAX)]
)
async def test_an_old_volume_is_kept_if_its_image_exists(volumes: int, images: int, kept: int) -> None:
    names = [volume_name(image) for image in ids(volumes)]
    engine = FakeEngine(ids(images), list(names))
    await remove_unused_volumes(cast(Docker, engine))
    assert engine.names == names[:kept]


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (404, f"get {VOLUME}: no such volume"),
        (400, f'invalid mount config for type "bind": bind source path does not exist: {FILE}'),
        (500, f'error mounting "{FILE}" to rootfs at "/etc/passwd": stat {FILE}: no such file or directory'),
    ],
)
def test_a_removed_volume_is_no_error_of_the_image(status: int, message: str) -> None:
    error = translate(DockerError(status, message), "python:3.13")
    assert isinstance(error, EtcFilesRemoved)
    assert f"files in the Docker volume {VOLUME} are missing" in str(error)
    assert "python3" not in str(error)
