"""The /etc/hosts of sandboxes without network: one file on the engine, shared by all of them.

Docker writes that file only for containers that it connects to a network, which would double the time of a start.
Without it, `localhost` has no address. See docs/design/docker-adapter.md."""

import io
import json
import secrets
import tarfile
import time
from http import HTTPStatus
from typing import Any

import anyio
from aiodocker import Docker
from aiodocker.containers import DockerContainer
from aiodocker.exceptions import DockerError
from attrs import define, field

from pyexec.adapters.docker.client import remove_container, translate_errors
from pyexec.errors import EngineError

HOSTNAME = "sandbox"
VOLUME = "pyexec-hosts"
ORPHAN_SECONDS = 300
_FILE = "hosts"
_MOUNTED = "/pyexec-hosts"
_TEXT = f"127.0.0.1\tlocalhost {HOSTNAME}\n::1\tlocalhost ip6-localhost ip6-loopback\n".encode()


@define(eq=False)
class HostsFile:
    """The file, in the volume `pyexec-hosts`. It is created if it is missing, and kept for the next server."""

    _docker: Docker
    _path: str | None = None
    _lock: anyio.Lock = field(factory=anyio.Lock)

    async def path(self, image: str) -> str:
        """Return the path of the file on the machine of the engine; create the file if it does not exist.

        That needs a helper container, which is never started. `image` is any image that exists on the engine.

        Raises `EngineError`, `Unavailable`, or `ImageUnavailable` if the image does not exist."""
        async with self._lock:
            if self._path is None:
                self._path = await self._ensure(image)
            return self._path

    def forget(self) -> None:
        """Forget the path, so that the next call checks the file: it has been removed."""
        self._path = None

    async def _ensure(self, image: str) -> str:
        async with translate_errors(image=image):
            # Returns the volume if it exists already.
            volume = await self._docker.volumes.create({"Name": VOLUME})  # type: ignore[no-untyped-call]
            folder = (await volume.show())["Mountpoint"]
            await self._remove_orphaned_helpers()
        name = f"{VOLUME}-{secrets.token_hex(8)}"
        try:
            async with translate_errors(image=image):
                container = await self._docker.containers.create(_helper_config(image), name=name)
                if not await _has_file(container):
                    await container.put_archive(_MOUNTED, _archive())  # type: ignore[no-untyped-call]
        finally:
            with anyio.CancelScope(shield=True):
                await remove_container(self._docker.containers.container(name))
        return f"{folder}/{_FILE}"

    async def _remove_orphaned_helpers(self) -> None:
        """Remove helper containers that a crashed server left behind: a server needs one for a moment only."""
        filters = json.dumps({"label": [f"{VOLUME}=carrier"], "status": ["created"]})
        for container in await self._docker.containers.list(all=1, filters=filters):
            if container["Created"] < time.time() - ORPHAN_SECONDS:
                await remove_container(container)


def mount(path: str) -> dict[str, Any]:
    """Return the entry of `HostConfig.Mounts` for a sandbox."""
    return {"Type": "bind", "Source": path, "Target": "/etc/hosts", "ReadOnly": True}


def is_missing(error: EngineError) -> bool:
    """Return True if a container could not be created because the file has been removed."""
    return "bind source path does not exist" in str(error)


def _helper_config(image: str) -> dict[str, Any]:
    # By default, Docker fills a new volume with files of the image, which could place a link there.
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
        if error.status == HTTPStatus.NOT_FOUND:
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
