"""The container engine behind aiodocker. No other file imports it, and its errors end here."""

import asyncio
import json
import logging
import secrets
import struct
from collections.abc import Mapping
from http import HTTPStatus
from typing import Self

import aiohttp
import anyio
from aiodocker import Docker
from aiodocker.containers import DockerContainer
from aiodocker.exceptions import DockerError
from aiodocker.stream import Stream

from pyexec.adapters.docker_config import Isolation, container_config, network_config
from pyexec.adapters.docker_errors import (
    GONE_STATUSES,
    error_of,
    is_gone,
    kill_container,
    remove_container,
    translated,
)
from pyexec.adapters.docker_hosts import HostsFile, is_missing, mount
from pyexec.adapters.docker_images import DockerImages
from pyexec.adapters.docker_setup import DockerSetupContainer
from pyexec.adapters.docker_survey import DockerSurvey
from pyexec.adapters.docker_trace import trace
from pyexec.domain.spec import MEBIBYTE
from pyexec.errors import ContainerGone, EngineError, ExecutorError, SettingsError, Unavailable
from pyexec.measures import UNMEASURED, Meter
from pyexec.ports import ContainerSpec, EngineIdentity, SetupSpec

logger = logging.getLogger(__name__)

DIAGNOSTICS_BYTES = 4096
STDOUT = 1
_LOG_HEADER = struct.Struct(">4xL")
"""Of each piece of a container's log: its stream, which we ask for only one of, and its length."""
_LIMIT_OF_INFO = {
    "MemoryLimit": "memory",
    "SwapLimit": "swap",
    "PidsLimit": "pids",
    "CPUShares": "cpu_shares",
    "CpuCfsQuota": "cpus",
}


class DockerEngine:
    """`ports.Engine` on a Docker daemon, from 20.10 on."""

    def __init__(self, docker: Docker, isolation: Isolation) -> None:
        self._docker = docker
        self._isolation = isolation
        self.images = DockerImages(docker)
        self._hosts = HostsFile(docker)
        self._unremoved: set[str] = set()
        """Containers, by name, that may be there although nobody needs them: the engine did not answer."""

    @classmethod
    async def connect(cls, host: str, isolation: Isolation, meter: Meter = UNMEASURED) -> Self:
        """An engine at `host` (`unix:///path` or `tcp://host:port`). Makes no request yet.

        Raises `SettingsError` for a host that cannot be one."""
        socket = host.removeprefix("unix://") if host.startswith("unix://") else None
        connector = aiohttp.UnixConnector(socket, limit=0) if socket is not None else None
        try:
            # With a connector of its own, the URL only makes up the requests' addresses.
            docker = Docker(url="unix://localhost" if socket else host, connector=connector)
        except ValueError as error:
            raise SettingsError(f"PYEXEC_DOCKER_HOST is {host!r}: {error}") from error
        docker.session.trace_configs.append(
            trace(meter)
        )  # its session is the one place that sees every request
        return cls(docker, isolation)

    async def close(self) -> None:
        await self._docker.close()
        await self._docker.connector.close()  # aiodocker leaves the one that `connect` makes to us

    async def check(self) -> None:
        async with translated():
            await self._docker.version()

    async def identify(self) -> EngineIdentity:
        async with translated():
            info = await self._docker.system.info()
            version = await self._docker.version()
        unenforced = [limit for key, limit in _LIMIT_OF_INFO.items() if not info.get(key)]
        if not any("seccomp" in option for option in info.get("SecurityOptions") or ()):
            unenforced.append("seccomp")
        runtime, runtimes = self._isolation.runtime, info.get("Runtimes", {})
        if runtime is not None and runtime not in runtimes:
            known = ", ".join(sorted(runtimes))
            raise SettingsError(f"PYEXEC_DOCKER_RUNTIME is {runtime!r}; this Docker engine knows {known}")
        return EngineIdentity(
            id=info["ID"],
            version=info["ServerVersion"],
            architecture=version["Arch"],
            cpus=info["NCPU"],
            memory_mb=info["MemTotal"] // MEBIBYTE,
            unenforced=unenforced,
        )

    @property
    def survey(self) -> DockerSurvey:
        """What an operator asks before a server starts."""
        return DockerSurvey(self._docker)

    async def start(self, spec: ContainerSpec) -> "AttachedContainer":
        await self._remove_unremoved()
        try:
            container = await self._create(spec)
        except EngineError as error:
            if not is_missing(error):
                raise
            self._hosts.forget()
            container = await self._create(spec)
        attached = AttachedContainer(container, self._unremoved)
        try:
            async with translated(image=spec.image):
                await attached.open()
                await container.start()
        except BaseException:
            with anyio.CancelScope(shield=True):
                await attached.remove()
            raise
        return attached

    async def _create(self, spec: ContainerSpec) -> DockerContainer:
        hosts = None if spec.network else mount(await self._hosts.path(spec.image))
        # We name it, so that one whose creation was cut off half-way can still be found and removed.
        name = f"pyexec-{secrets.token_hex(8)}"
        try:
            with anyio.CancelScope(shield=True):
                async with translated(image=spec.image):
                    container = await self._docker.containers.create(
                        container_config(spec, self._isolation, hosts), name=name
                    )
        except BaseException:
            self._unremoved.add(name)
            raise
        return container

    async def _remove_unremoved(self) -> None:
        for name in tuple(self._unremoved):
            try:
                await remove_container(self._docker.containers.container(name))
            except ExecutorError as error:
                logger.error("the container %s is left behind until the next start: %s", name, error)
            else:
                self._unremoved.discard(name)

    async def ensure_network(self, name: str) -> None:
        try:
            await self._docker.networks.create(network_config(name))
        except DockerError as error:
            if error.status != HTTPStatus.CONFLICT:  # it is there
                raise error_of(error) from error

    async def start_setup(self, spec: SetupSpec) -> DockerSetupContainer:
        return await DockerSetupContainer.start(self._docker, spec, self._isolation)

    async def follow(self, container_id: str) -> "FollowedContainer":
        return await FollowedContainer.open(self._docker, container_id, self._unremoved)

    async def list_containers(self, labels: Mapping[str, str]) -> Mapping[str, Mapping[str, str]]:
        filters = json.dumps({"label": [f"{name}={value}" for name, value in labels.items()]})
        async with translated():
            found = await self._docker.containers.list(all=1, filters=filters)
            return {container.id: container["Labels"] for container in found}

    async def remove_container(self, container_id: str) -> None:
        await remove_container(self._docker.containers.container(container_id))


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
        await self._stream.__aenter__()

    async def write(self, data: bytes) -> None:
        async with translated():
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
                await self.let_go()
            finally:
                await remove_container(self._container)
        except BaseException:
            self._unremoved.add(self.id)
            raise

    async def let_go(self) -> None:
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
        async with translated():
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
        await self.let_go()
        try:
            await remove_container(self._container)
        except BaseException:
            self._unremoved.add(self.id)
            raise

    async def let_go(self) -> None:
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
