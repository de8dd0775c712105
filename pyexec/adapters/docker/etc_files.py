"""The files in /etc that sandboxes mount: passwd and group, and hosts in those without network.

The files are in a volume on the engine, and all sandboxes share them. See docs/design/docker-adapter.md and
docs/design/user-and-home.md."""

import hashlib
import io
import json
import posixpath
import secrets
import tarfile
import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import anyio
from aiodocker import Docker
from attrs import define, field

from pyexec.adapters.docker.client import get, remove_container, request_timeout, translate_errors
from pyexec.errors import EngineError, ImageUnavailable
from pyexec.guest.home import USER
from pyexec.guest.wire import WORK

HOSTNAME: Final = "sandbox"
VOLUME: Final = "pyexec-etc"
ORPHAN_SECONDS: Final = 300
FILE_BYTES_MAX: Final = 64 * 1024
"""A larger file of an image is ignored: an image can contain anything."""
_MOUNTED: Final = "/pyexec-etc"
_HOSTS: Final = "/etc/hosts"
_HOSTS_TEXT: Final = f"127.0.0.1\tlocalhost {HOSTNAME}\n::1\tlocalhost ip6-localhost ip6-loopback\n".encode()
_BAD_PATH: Final = ("too many links", "too many levels of symbolic links", "not a directory")
"""Parts of Docker's message if a path of an image leads nowhere, for example by a link to itself."""
_LINKS_MAX: Final = 5
_KNOWN_MAX: Final = 1000


@define(eq=False)
class EtcFiles:
    """The files, in the volume `pyexec-etc`. They are created if they are missing, and kept for the next server.

    The name of a file contains the hash of its content, so files never change."""

    _docker: Docker
    _known: dict[tuple[str, int], Mapping[str, str]] = field(factory=dict)
    _lock: anyio.Lock = field(factory=anyio.Lock)

    async def mounts(self, image: str, uid: int, *, network: bool) -> Sequence[Mapping[str, Any]]:
        """Return the entries of `HostConfig.Mounts` for a sandbox of this image whose user and group have this id.

        For the first sandbox of an image, this needs a helper container, which is never started.

        Raises `EngineError`, `Unavailable`, or `ImageUnavailable` if the image does not exist or has no proper file."""
        paths = self._known.get((image, uid))
        if paths is None:
            async with self._lock:
                paths = self._known.get((image, uid)) or await self._create_files(image, uid)
                if len(self._known) >= _KNOWN_MAX:
                    self._known.clear()
                self._known[image, uid] = paths
        return [
            {"Type": "bind", "Source": path, "Target": target, "ReadOnly": True}
            for target, path in paths.items()
            if target != _HOSTS or not network  # with a network, Docker creates this file
        ]

    def forget(self) -> None:
        """Forget the paths, so that the next call checks the files: one has been removed."""
        self._known.clear()

    async def _create_files(self, image: str, uid: int) -> Mapping[str, str]:
        """Create the files that are missing in the volume. Return their paths on the machine of the engine."""
        async with translate_errors(image=image):
            # Returns the volume if it exists already.
            volume = await self._docker.volumes.create({"Name": VOLUME})  # type: ignore[no-untyped-call]
            folder = (await volume.show())["Mountpoint"]
            await self._remove_orphaned_helpers()
        name = f"{VOLUME}-{secrets.token_hex(8)}"
        try:
            async with translate_errors(image=image):
                container = await self._docker.containers.create(_helper_config(image), name=name)
            contents = {
                _HOSTS: _HOSTS_TEXT,
                "/etc/passwd": passwd_file(uid, await self._read_file(name, "/etc/passwd")),
                "/etc/group": group_file(uid, await self._read_file(name, "/etc/group")),
            }
            names = {target: _name(target, content) for target, content in contents.items()}
            missing = {
                names[target]: content
                for target, content in contents.items()
                if await self._read_file(name, f"{_MOUNTED}/{names[target]}") != content
            }
            if missing:
                async with translate_errors(image=image):
                    await container.put_archive(_MOUNTED, _archive(missing))  # type: ignore[no-untyped-call]
        finally:
            with anyio.CancelScope(shield=True):
                await remove_container(self._docker.containers.container(name))
        return {target: f"{folder}/{file}" for target, file in names.items()}

    async def _read_file(self, container: str, path: str) -> bytes:
        """Return a file of a container; nothing if it is missing or too large.

        Raises `ImageUnavailable` if it is not a regular file: Docker opens /etc/passwd itself at the start of a
        container, and would wait forever for a FIFO."""
        target = path
        for _ in range(_LINKS_MAX):
            member, content = await self._read_member(container, target)
            if member is None or member.isreg():
                return content
            if not member.issym():
                break
            target = posixpath.normpath(posixpath.join(posixpath.dirname(target), member.linkname))
        raise _not_a_file(path)

    async def _read_member(self, container: str, path: str) -> tuple[tarfile.TarInfo | None, bytes]:
        """Read the beginning of the tar with which Docker answers, because the file can have any size."""
        async with request_timeout(self._docker):
            response = await get(self._docker, f"containers/{container}/archive", {"path": path}, stream=True)
            data = b""
            try:
                if response.status not in (HTTPStatus.OK, HTTPStatus.NOT_FOUND):
                    message = await response.text()
                    if any(sign in message for sign in _BAD_PATH):
                        raise _not_a_file(path)
                    raise EngineError(f"Docker cannot read {path} of a container: {message[:200]}")
                while response.status == HTTPStatus.OK and len(data) < 2 * FILE_BYTES_MAX:
                    chunk = await response.content.readany()
                    if not chunk:
                        break
                    data += chunk
            finally:
                response.close()
        try:
            with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
                member = tar.next()
                if member is None or not member.isreg() or member.size > FILE_BYTES_MAX:
                    return member, b""
                file = tar.extractfile(member)
                return member, file.read() if file else b""
        except tarfile.TarError:
            return None, b""

    async def _remove_orphaned_helpers(self) -> None:
        """Remove helper containers that a crashed server left behind: a server needs one for a moment only."""
        filters = json.dumps({"label": [f"{VOLUME}=helper"], "status": ["created"]})
        for container in await self._docker.containers.list(all=1, filters=filters):
            is_own = any(name.startswith(f"/{VOLUME}-") for name in container["Names"])
            if is_own and container["Created"] < time.time() - ORPHAN_SECONDS:
                await remove_container(container)


def passwd_file(uid: int, image_file: bytes) -> bytes:
    """Return /etc/passwd with the sandbox's user. The first line with an id or a name wins."""
    others = image_file or b"root:x:0:0:root:/root:/bin/sh\n"
    return f"{USER}:x:{uid}:{uid}:{USER}:{WORK}:/bin/sh\n".encode() + others


def group_file(gid: int, image_file: bytes) -> bytes:
    """Return /etc/group with the sandbox's group."""
    return f"{USER}:x:{gid}:\n".encode() + (image_file or b"root:x:0:\n")


def is_missing(error: EngineError) -> bool:
    """Return True if a container could not be created because one of the files has been removed."""
    return "bind source path does not exist" in str(error)


def _not_a_file(path: str) -> ImageUnavailable:
    return ImageUnavailable(f"programs cannot run in this image: its {path} is not a regular file")


def _name(target: str, content: bytes) -> str:
    return f"{posixpath.basename(target)}-{hashlib.sha256(content).hexdigest()}"


def _helper_config(image: str) -> Mapping[str, Any]:
    # By default, Docker fills a new volume with files of the image, which could place a link there.
    volume = {"Type": "volume", "Source": VOLUME, "Target": _MOUNTED, "VolumeOptions": {"NoCopy": True}}
    return {
        "Image": image,
        "Entrypoint": [],
        "Cmd": ["none"],
        "Labels": {VOLUME: "helper"},
        "NetworkDisabled": True,
        "HostConfig": {"Mounts": [volume]},
    }


def _archive(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o644
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
