"""The two ways to a container of ours: attached to its streams since before its start, or by the engine's log of it."""

import asyncio
import struct
from http import HTTPStatus
from typing import Self

import aiohttp
from aiodocker import Docker
from aiodocker.containers import DockerContainer
from aiodocker.stream import Stream

from pyexec.adapters.docker.errors import (
    GONE_STATUSES,
    answered,
    is_gone,
    kill_container,
    remove_container,
    translated,
)
from pyexec.errors import ContainerGone, EngineError, Unavailable

DIAGNOSTICS_BYTES = 4096
STDOUT = 1
_LOG_HEADER = struct.Struct(">4xL")
"""Of each piece of a container's log: its stream, which we ask for only one of, and its length."""


class AttachedContainer:
    """`ports.Container`: a container and the one connection to its standard streams."""

    def __init__(self, container: DockerContainer, unremoved: set[str]) -> None:
        self._container = container
        self._unremoved = unremoved
        self._stream: Stream = container.attach(stdin=True, stdout=True, stderr=True)
        self._diagnostics = bytearray()

    @property
    def id(self) -> str:
        return self._container.id

    @property
    def diagnostics(self) -> str:
        return self._diagnostics.decode("utf-8", "replace").strip()

    async def open(self) -> None:
        """Attaches; must come before the start, or the first bytes are lost."""
        async with answered(self._container.docker):
            await self._stream.__aenter__()

    async def write(self, data: bytes) -> None:
        async with answered(self._container.docker):
            await self._stream.write_in(data)

    async def read(self) -> bytes | None:
        async with translated():
            while (message := await self._stream.read_out()) is not None:
                if message.stream == STDOUT:
                    return message.data
                room = DIAGNOSTICS_BYTES - len(self._diagnostics)
                self._diagnostics += message.data[:room]
        await _check_ended(self._container)
        return None

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

    async def detach(self) -> None:
        await self._stream.close()


class FollowedContainer:
    """`ports.Container`: a container that was started before, by the log that the engine keeps of it."""

    def __init__(
        self, container: DockerContainer, response: aiohttp.ClientResponse, unremoved: set[str]
    ) -> None:
        self._container = container
        self._response = response
        self._unremoved = unremoved

    @classmethod
    async def open(cls, docker: Docker, container_id: str, unremoved: set[str]) -> Self:
        """Follows the log from its beginning; raises `ContainerGone` when there is none any more."""
        path = f"{docker.docker_host}/{docker.api_version}/containers/{container_id}/logs"
        parameters = {"stdout": "1", "follow": "1"}
        async with answered(docker):
            response = await docker.session.get(path, params=parameters, timeout=aiohttp.ClientTimeout())
        if response.status != HTTPStatus.OK:
            response.close()
            gone = response.status in GONE_STATUSES
            error = ContainerGone if gone else EngineError
            raise error(f"the container {container_id[:12]} cannot be followed: {response.reason}")
        return cls(docker.containers.container(container_id), response, unremoved)

    @property
    def id(self) -> str:
        return self._container.id

    @property
    def diagnostics(self) -> str:
        return ""

    async def write(self, data: bytes) -> None:
        raise EngineError(
            f"the container {self.id[:12]} is only followed; {len(data)} bytes cannot be written to it"
        )

    async def read(self) -> bytes | None:
        try:
            async with translated():
                header = await self._response.content.readexactly(_LOG_HEADER.size)
                return await self._response.content.readexactly(_LOG_HEADER.unpack(header)[0])
        except asyncio.IncompleteReadError:
            await _check_ended(self._container)
            return None

    async def kill(self) -> None:
        await kill_container(self._container)

    async def remove(self) -> None:
        await self.detach()
        try:
            await remove_container(self._container)
        except BaseException:
            self._unremoved.add(self.id)
            raise

    async def detach(self) -> None:
        self._response.close()


async def _check_ended(container: DockerContainer) -> None:
    """At the end of a stream: raises `EngineError` unless the container has ended, too."""
    try:
        async with translated():
            state = (await container.show())["State"]
    except EngineError as error:
        if is_gone(error):
            return
        raise
    except Unavailable as error:
        raise EngineError(str(error)) from error
    if state["Running"]:
        raise EngineError("the connection to Docker ended before the container did")
