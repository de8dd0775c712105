"""The /etc/hosts of sandboxes without network, one file on the engine for all of them.

Docker writes that file for containers that it connects to a network, `none` included. Connecting one costs more than
half of its start (measured with 20.10: 220 ms of which 120; and 370 ms of processor time of which 140), so ours are not
connected at all: the runtime gives them a network namespace of their own, with a loopback and nothing else. Without
the file not even `localhost` would have an address."""

import io
import json
import secrets
import tarfile
import time
from typing import Any

import anyio
from aiodocker import Docker
from aiodocker.containers import DockerContainer
from aiodocker.exceptions import DockerError
from attrs import define, field

from pyexec.adapters.docker.errors import remove_container, translated
from pyexec.errors import EngineError

HOSTNAME = "sandbox"
VOLUME = "pyexec-hosts"
ABANDONED_SECONDS = 300
_FILE = "hosts"
_MOUNTED = "/pyexec-hosts"
_TEXT = f"127.0.0.1\tlocalhost {HOSTNAME}\n::1\tlocalhost ip6-localhost ip6-loopback\n".encode()


@define(eq=False)
class HostsFile:
    """A file in a volume of that name, made when it is missing, and left there for the next server."""

    _docker: Docker
    _path: str | None = None
    _looking: anyio.Lock = field(factory=anyio.Lock)

    async def path(self, image: str) -> str:
        """Where the engine has it. Looking needs a container, which is never started, of an image that is there.

        Raises `EngineError`, `Unavailable`, and `ImageUnavailable` when it is not."""
        async with self._looking:
            if self._path is None:
                self._path = await self._ensure(image)
            return self._path

    def forget(self) -> None:
        """Somebody has removed it: the next to ask makes it again."""
        self._path = None

    async def _ensure(self, image: str) -> str:
        async with translated(image=image):
            # One of this name that is there already is what this gives.
            volume = await self._docker.volumes.create({"Name": VOLUME})  # type: ignore[no-untyped-call]
            folder = (await volume.show())["Mountpoint"]
            await self._remove_carriers()
        name = f"{VOLUME}-{secrets.token_hex(8)}"
        try:
            async with translated(image=image):
                container = await self._docker.containers.create(_carrier(image), name=name)
                if not await _has_file(container):
                    await container.put_archive(_MOUNTED, _archive())  # type: ignore[no-untyped-call]
        finally:
            with anyio.CancelScope(shield=True):
                await remove_container(self._docker.containers.container(name))
        return f"{folder}/{_FILE}"

    async def _remove_carriers(self) -> None:
        """Those that servers left which ended just then; one that serves lives for a moment only."""
        filters = json.dumps({"label": [f"{VOLUME}=carrier"], "status": ["created"]})
        for container in await self._docker.containers.list(all=1, filters=filters):
            if container["Created"] < time.time() - ABANDONED_SECONDS:
                await remove_container(container)


def mount(path: str) -> dict[str, Any]:
    """The file in a sandbox, as `HostConfig.Mounts` takes it."""
    return {"Type": "bind", "Source": path, "Target": "/etc/hosts", "ReadOnly": True}


def is_missing(error: EngineError) -> bool:
    """Whether a container could not be created because the file has been removed."""
    return "bind source path does not exist" in str(error)


def _carrier(image: str) -> dict[str, Any]:
    # Docker would fill a new volume with what the image, anybody's, has there: a link, perhaps, in the file's place.
    volume = {"Type": "volume", "Source": VOLUME, "Target": _MOUNTED, "VolumeOptions": {"NoCopy": True}}
    return {
        "Image": image,
        "Entrypoint": [],
        "Cmd": ["none"],
        "Labels": {VOLUME: "carrier"},
        "NetworkDisabled": True,
        "HostConfig": {"Mounts": [volume]},
    }


async def _has_file(container: DockerContainer) -> bool:
    try:
        archive = await container.get_archive(f"{_MOUNTED}/{_FILE}")
    except DockerError as error:
        if error.status == 404:
            return False
        raise
    file = archive.extractfile(_FILE)
    return file is not None and file.read() == _TEXT


def _archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo(_FILE)
        member.size, member.mode = len(_TEXT), 0o644
        tar.addfile(member, io.BytesIO(_TEXT))
    return buffer.getvalue()
