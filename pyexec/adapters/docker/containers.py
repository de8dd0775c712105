"""Containers on a Docker engine: attached before their start, followed by their log, or attached for a setup."""

import asyncio
import io
import secrets
import struct
import tarfile
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any, Self

import aiohttp
import anyio
from aiodocker import Docker
from aiodocker.containers import DockerContainer
from aiodocker.stream import Stream
from anyio import to_thread

from pyexec.adapters.docker.accounting import has_oom_event, read_usage
from pyexec.adapters.docker.client import (
    GONE_STATUSES,
    get,
    is_gone,
    kill_container,
    remove_container,
    request_timeout,
    translate_errors,
)
from pyexec.adapters.docker.config import SecurityOptions, setup_config
from pyexec.adapters.docker.images import ImageVolumes
from pyexec.adapters.docker.stream_writer import StreamWriter
from pyexec.errors import ContainerGone, EngineError, Unavailable
from pyexec.ports import ContainerUsage, SetupSpec

DIAGNOSTICS_BYTES = 4096
STDOUT = 1
_LOG_HEADER = struct.Struct(">4xL")
"""The header of each chunk of a container's log: the stream, always stdout here, and the length."""
_LINE_BYTES_MAX = 64 * 1024
_FINISH = b"."


class RunningContainer(ABC):
    """The part of `ports.Container` that does not depend on the connection.

    If the removal fails, the id is added to `unremoved`, and the engine retries the removal."""

    def __init__(self, container: DockerContainer, unremoved: set[str]) -> None:
        self._container = container
        self._unremoved = unremoved

    @property
    def id(self) -> str:
        return self._container.id

    async def usage(self) -> ContainerUsage:
        return await read_usage(self._container)

    async def has_oom_event(self) -> bool:
        return await has_oom_event(self._container)

    async def kill(self) -> None:
        await kill_container(self._container)

    async def remove(self) -> None:
        try:
            try:
                await self.detach()
            finally:
                await remove_container(self._container)
        except BaseException:
            self._unremoved.add(self.id)
            raise

    @abstractmethod
    async def detach(self) -> None:
        """Close the connection."""


class AttachedContainer(RunningContainer):
    """`ports.Container`: a container, and the only connection to its standard streams.

    If it has several writers, as that of a session, the cancellation of one of them must not concern the others."""

    def __init__(self, container: DockerContainer, unremoved: set[str], *, has_several_writers: bool) -> None:
        super().__init__(container, unremoved)
        self._stream: Stream = container.attach(stdin=True, stdout=True, stderr=True)
        self._write = StreamWriter(self._stream).write if has_several_writers else self._stream.write_in
        self._diagnostics = bytearray()

    @property
    def diagnostics(self) -> str:
        return self._diagnostics.decode("utf-8", "replace").strip()

    async def open(self) -> None:
        """Attach to the container. Call it before the start: output before it is lost."""
        with request_timeout(self._container.docker):
            await self._stream.__aenter__()

    async def attach(self) -> None:
        """Attach to a running container. Raises `ContainerGone` if it does not exist or is not running."""
        try:
            with translate_errors():
                state = (await self._container.show())["State"]
                if state["Running"]:
                    await self.open()
                    return
        except EngineError as error:
            if not is_gone(error):
                raise
        raise ContainerGone(f"container {self.id[:12]} is no longer running")

    async def write(self, data: bytes) -> None:
        with request_timeout(self._container.docker):
            await self._write(data)

    async def read(self) -> bytes | None:
        with translate_errors():
            while (message := await self._stream.read_out()) is not None:
                if message.stream == STDOUT:
                    return message.data
                capacity = DIAGNOSTICS_BYTES - len(self._diagnostics)
                self._diagnostics += message.data[:capacity]
        await _check_ended(self._container)
        return None

    async def detach(self) -> None:
        await self._stream.close()


class FollowedContainer(RunningContainer):
    """`ports.Container`: a container that was started earlier, read from the log that Docker keeps of it."""

    def __init__(
        self, container: DockerContainer, response: aiohttp.ClientResponse, unremoved: set[str]
    ) -> None:
        super().__init__(container, unremoved)
        self._response = response

    @classmethod
    async def open(cls, docker: Docker, container_id: str, unremoved: set[str]) -> Self:
        """Follow the log from its beginning. Raises `ContainerGone` if the container does not exist."""
        path = f"containers/{container_id}/logs"
        response = await get(docker, path, {"stdout": "1", "follow": "1"}, stream=True)
        if response.status != HTTPStatus.OK:
            response.close()
            error = ContainerGone if response.status in GONE_STATUSES else EngineError
            raise error(f"container {container_id[:12]} cannot be followed: {response.reason}")
        return cls(docker.containers.container(container_id), response, unremoved)

    @property
    def diagnostics(self) -> str:
        return ""

    async def write(self, data: bytes) -> None:
        raise EngineError(f"container {self.id[:12]} is followed read-only; cannot write {len(data)} bytes")

    async def read(self) -> bytes | None:
        try:
            with translate_errors():
                header = await self._response.content.readexactly(_LOG_HEADER.size)
                return await self._response.content.readexactly(_LOG_HEADER.unpack(header)[0])
        except asyncio.IncompleteReadError:
            await _check_ended(self._container)
            return None

    async def detach(self) -> None:
        self._response.close()


async def _check_ended(container: DockerContainer) -> None:
    """Raise `EngineError` at the end of a stream if the container is still running."""
    try:
        with translate_errors():
            state = (await container.show())["State"]
    except EngineError as error:
        if is_gone(error):
            return
        raise
    except Unavailable as error:
        raise EngineError(str(error)) from error
    if state["Running"]:
        raise EngineError("the connection to Docker ended before the container did")


class DockerSetupContainer:
    """`ports.SetupContainer`. Its main process exits if this connection ends."""

    def __init__(self, docker: Docker, container: DockerContainer, spec: SetupSpec) -> None:
        self._docker = docker
        self._container = container
        self._spec = spec
        self._stream: Stream = container.attach(stdin=True, stdout=True, stderr=True)
        self._unread = b""

    @classmethod
    async def start(
        cls, docker: Docker, spec: SetupSpec, security: SecurityOptions, image: ImageVolumes
    ) -> Self:
        """Implement `ports.Engine.start_setup`."""
        with await to_thread.run_sync(_archive, spec.files) as files:
            with anyio.CancelScope(shield=True):
                with translate_errors(image=spec.image):
                    container = await docker.containers.create(
                        setup_config(spec, security, image), name=f"pyexec-setup-{secrets.token_hex(8)}"
                    )
            setup = cls(docker, container, spec)
            try:
                with translate_errors(image=spec.image):
                    await container.put_archive("/", files)  # type: ignore[no-untyped-call]
                    with request_timeout(docker):
                        await setup._stream.__aenter__()
                    await container.start()
            except BaseException:
                with anyio.CancelScope(shield=True):
                    await setup.remove()
                raise
        return setup

    async def read_line(self) -> bytes:
        with translate_errors():
            while b"\n" not in self._unread and len(self._unread) < _LINE_BYTES_MAX:
                message = await self._stream.read_out()
                if message is None:
                    break
                self._unread += message.data
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    async def execute(
        self, command: Sequence[str], environment: Mapping[str, str], on_output: Callable[[bytes], None]
    ) -> int:
        with translate_errors():
            execution = await self._container.exec(
                list(command), user="0:0", workdir="/", environment=dict(environment)
            )
            async with execution.start(detach=False) as output:
                while (message := await output.read_out()) is not None:
                    on_output(message.data)
            code = (await execution.inspect())["ExitCode"]
        if code is None:
            raise EngineError("a setup command ended without an exit code")
        return int(code)

    async def written_bytes(self) -> int:
        with translate_errors():
            document = await self._container.show(size=1)
        return int(document.get("SizeRw") or 0)

    async def has_oom_event(self) -> bool:
        return await has_oom_event(self._container)

    async def finish(self) -> None:
        with translate_errors():
            await self._stream.write_in(_FINISH)
            await self._container.wait()

    async def commit(self, repository: str, tag: str, labels: Mapping[str, str]) -> None:
        with translate_errors(image=self._spec.image):
            config = (await self._docker.images.inspect(self._spec.image)).get("Config") or {}
            # Docker copies the labels of the container to the image, and from there to every container of it.
            # Empty values keep this server from taking those containers for its own.
            cleared = dict.fromkeys(self._spec.labels, "")
            config = {**config, "Labels": {**(config.get("Labels") or {}), **cleared, **labels}}
        with translate_errors():
            await self._container.commit(repository=repository, tag=tag, config=config)

    async def remove(self) -> None:
        try:
            with translate_errors():
                await self._stream.close()
        finally:
            await remove_container(self._container)


def _archive(files: Mapping[str, bytes | Path]) -> IO[bytes]:
    """Return the files as a tar on disk: they are too large to hold them in memory for each setup."""
    archive = tempfile.TemporaryFile()  # noqa: SIM115 the caller closes it
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in files.items():
            with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
                member = tarfile.TarInfo(name.lstrip("/"))
                member.size, member.mode = _size(file), 0o755
                tar.addfile(member, file)
    archive.seek(0)
    return archive


def _size(file: Any) -> int:
    size: int = file.seek(0, io.SEEK_END)
    file.seek(0)
    return size
