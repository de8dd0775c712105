"""The files in /etc that sandboxes mount: passwd and group, and hosts in those without network.

The files are in one volume on the engine for each image. Sandboxes share none of them: there is one file for each
image and user id. See docs/design/docker-adapter.md and docs/design/user-and-home.md."""

import io
import json
import posixpath
import secrets
import tarfile
import time
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import anyio
from aiodocker import Docker
from anyio import to_thread
from attrs import define, field, frozen

from pyexec.adapters.docker.client import (
    get,
    has_status,
    head,
    remove_container,
    request_timeout,
    translate_errors,
)
from pyexec.adapters.docker.images import ImageVolumes
from pyexec.errors import EngineError, ImageUnavailable
from pyexec.guest.home import USER
from pyexec.guest.wire import WORK

HOSTNAME: Final = "sandbox"
LABEL: Final = "pyexec-etc"
ORPHAN_SECONDS: Final = 300
FILE_BYTES_MAX: Final = 16 * 1024
"""A larger file of an image is ignored: an image can contain anything."""
BLOCK_IDS: Final = 64
"""The files are created for this many user ids at once: 64 ids take 30 ms, the whole range half a second."""
VOLUMES_MAX: Final = 100
"""If there are more, volumes of removed images are removed. A volume takes 0.8 MiB on disk, and at most 2.3 MiB."""
_MOUNTED: Final = "/pyexec-etc"
_PASSWD, _GROUP, _HOSTS = "/etc/passwd", "/etc/group", "/etc/hosts"
TARGETS: Final = (_PASSWD, _GROUP, _HOSTS)
_HOSTS_TEXT: Final = f"127.0.0.1\tlocalhost {HOSTNAME}\n::1\tlocalhost ip6-localhost ip6-loopback\n".encode()
_OPENED: Final = (_PASSWD, _GROUP, "/etc/nsswitch.conf")
"""The files of an image that Docker opens itself, to look up names: at the start of a container, and when it reads any
file of one. It would wait forever for a FIFO."""
_LINK_BIT: Final = 1 << 27
_TYPE_BITS: Final = 0x8F280000
"""Bits of a mode as Docker's API shows it: that of a link, and those of all kinds of files but regular ones."""
_BAD_PATH: Final = ("too many links", "too many levels of symbolic links", "not a directory")
"""Parts of Docker's message if a path of an image leads nowhere, for example by a link to itself."""
_LINKS_MAX: Final = 5
_KNOWN_MAX: Final = 1000


@frozen
class _Block:
    """User ids whose files are created together."""

    image: ImageVolumes
    ids: range

    @property
    def volume(self) -> str:
        return volume_name(self.image.image_id)

    @property
    def marker(self) -> str:
        """The file that is created last. If it exists, the files of the block are complete."""
        return f"complete-{self.ids.start}-{self.ids[-1]}"


@define(eq=False)
class EtcFiles:
    """The files, for the user ids of sandboxes. They are created if they are missing, and kept for the next server."""

    _docker: Docker
    _ids: range
    _known: dict[_Block, str] = field(factory=dict)
    """The directory of the files of a block, on the machine of the engine."""
    _removed: bool = False
    """True if files have been removed, so that markers prove nothing."""
    _lock: anyio.Lock = field(factory=anyio.Lock)

    async def mounts(self, image: ImageVolumes, uid: int, *, network: bool) -> Sequence[Mapping[str, Any]]:
        """Return the entries of `HostConfig.Mounts` for a sandbox of this image whose user and group have this id.

        For the first sandbox of a block of ids, this needs a helper container, which is never started.

        Raises `EtcFilesRemoved`, `EngineError`, `Unavailable`, or `ImageUnavailable` if the image does not exist or its
        /etc/passwd, /etc/group or /etc/nsswitch.conf is not a regular file."""
        block = self._block(image, uid)
        folder = self._known.get(block)
        if folder is None:
            async with self._lock:
                folder = self._known.get(block) or await self._create_files(block)
                if len(self._known) >= _KNOWN_MAX:
                    self._known.clear()
                self._known[block] = folder
        return [
            {"Type": "bind", "Source": f"{folder}/{_name(target, uid)}", "Target": target, "ReadOnly": True}
            for target in TARGETS
            if target != _HOSTS or not network  # with a network, Docker creates this file
        ]

    def forget(self) -> None:
        """Forget the files, so that the next call creates them again: one has been removed."""
        self._known.clear()
        self._removed = True

    def _block(self, image: ImageVolumes, uid: int) -> _Block:
        index = self._ids.index(uid) // BLOCK_IDS
        return _Block(image, self._ids[index * BLOCK_IDS : (index + 1) * BLOCK_IDS])

    async def _create_files(self, block: _Block) -> str:
        """Create the files if they are missing. Return their directory on the machine of the engine."""
        image_id = block.image.image_id
        with translate_errors(image=image_id):
            # Returns the volume if it exists already.
            volume = await self._docker.volumes.create({"Name": block.volume, "Labels": {LABEL: ""}})  # type: ignore[no-untyped-call]
            folder = str((await volume.show())["Mountpoint"])
            await self._remove_orphaned_helpers()
            await remove_unused_volumes(self._docker)
        name = f"{LABEL}-{secrets.token_hex(8)}"
        try:
            with translate_errors(image=image_id):
                container = await self._docker.containers.create(_helper_config(block), name=name)
            found = {path: await self._find_file(name, path) for path in _OPENED}
            marker = await self._read_file(name, f"{_MOUNTED}/{block.marker}")
            if self._removed or not marker:
                passwd, group = [await self._read_file(name, found[path]) for path in (_PASSWD, _GROUP)]
                archive = await to_thread.run_sync(_archive, _files(block, passwd, group))
                with translate_errors(image=image_id):
                    await container.put_archive(_MOUNTED, archive)  # type: ignore[no-untyped-call]
        finally:
            with anyio.CancelScope(shield=True):
                await remove_container(self._docker.containers.container(name))
        return folder

    async def _find_file(self, container: str, path: str) -> str | None:
        """Return the path of the regular file to which a path leads; None if there is none.

        Raises `ImageUnavailable` if it is no regular file."""
        target = path
        for _ in range(_LINKS_MAX):
            status = await self._stat(container, target)
            if status is None:
                return None
            if not status["mode"] & _TYPE_BITS:
                return target
            if not status["mode"] & _LINK_BIT:
                break
            target = posixpath.normpath(posixpath.join(posixpath.dirname(target), status["linkTarget"]))
        raise _not_a_file(path)

    async def _stat(self, container: str, target: str) -> Any:
        """Return the type and the target of a file, which Docker does not open; None if it is missing."""
        response = await head(self._docker, f"containers/{container}/archive", {"path": target})
        encoded = response.headers.get("X-Docker-Container-Path-Stat")
        if response.status == HTTPStatus.OK and encoded is not None:
            return json.loads(b64decode(encoded))
        if response.status == HTTPStatus.NOT_FOUND:
            return None
        await self._read_file(
            container, target
        )  # raises an error with Docker's message, which this answer lacks
        raise EngineError(f"Docker cannot look up {target} of a container: status {response.status}")

    async def _read_file(self, container: str, path: str | None) -> bytes:
        """Return a regular file of a container, as `_find_file` has found it; nothing if it is missing or too large.

        Read only the beginning of the tar with which Docker answers, because the file can have any size."""
        if path is None:
            return b""
        with request_timeout(self._docker):
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
                is_whole = member is not None and member.isreg() and member.size <= FILE_BYTES_MAX
                file = tar.extractfile(member) if member is not None and is_whole else None
                return file.read() if file else b""
        except tarfile.TarError:
            return b""

    async def _remove_orphaned_helpers(self) -> None:
        """Remove helper containers that a crashed server left behind: a server needs one for a moment only."""
        filters = json.dumps({"label": [f"{LABEL}=helper"], "status": ["created"]})
        for container in await self._docker.containers.list(all=1, filters=filters):
            is_own = any(name.startswith(f"/{LABEL}-") for name in container["Names"])
            if is_own and container["Created"] < time.time() - ORPHAN_SECONDS:
                await remove_container(container)


async def remove_unused_volumes(docker: Docker) -> None:
    """Remove the volumes of images that do not exist, if there are too many volumes.

    Any server on the engine can start sandboxes of an image that exists, so its volume is kept."""
    answer = await docker.volumes.list(filters={"label": [LABEL]})  # type: ignore[no-untyped-call]
    volumes = [volume["Name"] for volume in answer["Volumes"] or ()]
    if len(volumes) <= VOLUMES_MAX:
        return
    # Listed after the volumes: an image exists before its volume does.
    used = {volume_name(image["Id"]) for image in await docker.images.list(all=1)}
    for name in volumes:
        if name in used:
            continue
        try:
            with translate_errors():
                found = await docker.volumes.get(name)  # type: ignore[no-untyped-call]
                await found.delete()
        except EngineError as error:
            # Another server has removed it, or uses it.
            if not has_status(error, (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)):
                raise


def passwd_file(uid: int, image_file: bytes) -> bytes:
    """Return /etc/passwd with the sandbox's user. The first line with an id or a name wins."""
    others = image_file or b"root:x:0:0:root:/root:/bin/sh\n"
    return f"{USER}:x:{uid}:{uid}:{USER}:{WORK}:/bin/sh\n".encode() + others


def group_file(gid: int, image_file: bytes) -> bytes:
    """Return /etc/group with the sandbox's group."""
    return f"{USER}:x:{gid}:\n".encode() + (image_file or b"root:x:0:\n")


def volume_name(image_id: str) -> str:
    """Return the name of the volume with the files of an image."""
    return f"{LABEL}-{image_id.rpartition(':')[2][:32]}"


def _not_a_file(path: str) -> ImageUnavailable:
    return ImageUnavailable(f"programs cannot run in this image: its {path} is not a regular file")


def _name(target: str, uid: int) -> str:
    return f"{posixpath.basename(target)}-{uid}"


def _helper_config(block: _Block) -> Mapping[str, Any]:
    # By default, Docker fills a new volume with files of the image, which could place a link there.
    volume = {
        "Type": "volume", "Source": block.volume, "Target": _MOUNTED, "VolumeOptions": {"NoCopy": True}
    }  # fmt: skip
    return {
        "Image": block.image.image_id,
        "Entrypoint": [],
        "Cmd": ["none"],
        "Labels": {LABEL: "helper"},
        "NetworkDisabled": True,
        # Otherwise Docker would copy what the image has in its volumes.
        "HostConfig": {"Mounts": [volume], "Tmpfs": dict.fromkeys(block.image.paths, "")},
    }


def _files(block: _Block, passwd: bytes, group: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the names and contents of the files of a block, the marker last."""
    for uid in block.ids:
        yield _name(_PASSWD, uid), passwd_file(uid, passwd)
        yield _name(_GROUP, uid), group_file(uid, group)
        yield _name(_HOSTS, uid), _HOSTS_TEXT
    yield block.marker, b"complete\n"


def _archive(files: Iterator[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o644
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
