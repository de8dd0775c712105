"""The container engine behind aiodocker."""

import json
import logging
import secrets
from collections.abc import Mapping
from functools import partial
from typing import Self

import aiohttp
import anyio
from aiodocker import Docker
from aiodocker.containers import DockerContainer

from pyexec.adapters.docker.config import Isolation, container_config
from pyexec.adapters.docker.containers import AttachedContainer, FollowedContainer
from pyexec.adapters.docker.errors import (
    remove_container,
    translated,
)
from pyexec.adapters.docker.hosts import HostsFile, is_missing, mount
from pyexec.adapters.docker.images import DockerImages
from pyexec.adapters.docker.info import DockerSurvey
from pyexec.adapters.docker.metrics import trace
from pyexec.adapters.docker.networks import Networks
from pyexec.adapters.docker.setup import DockerSetupContainer
from pyexec.domain.spec import MEBIBYTE
from pyexec.errors import EngineError, ExecutorError, SettingsError, Unavailable
from pyexec.metrics import NOOP_METER, Meter
from pyexec.ports import ContainerSpec, EngineIdentity, SetupSpec

logger = logging.getLogger(__name__)

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
        self.networks = Networks(docker)
        self._hosts = HostsFile(docker)
        self._unremoved: set[str] = set()
        """Containers, by name, that may be there although nobody needs them: the engine did not answer."""

    @classmethod
    async def connect(
        cls, host: str, isolation: Isolation, answer_seconds: float, meter: Meter = NOOP_METER
    ) -> Self:
        """An engine at `host` (`unix:///path` or `tcp://host:port`), away if it takes longer than `answer_seconds` to
        answer. Makes no request yet.

        Raises `SettingsError` for a host that cannot be one."""
        socket = host.removeprefix("unix://") if host.startswith("unix://") else None
        connector = aiohttp.UnixConnector(socket, limit=0) if socket is not None else None
        try:
            # With a connector of its own, the URL only makes up the requests' addresses.
            docker = Docker(
                url="unix://localhost" if socket else host,
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=answer_seconds),
            )
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

    async def start(self, spec: ContainerSpec) -> AttachedContainer:
        await self._remove_unremoved()
        return await self.networks.with_network(spec.network, partial(self._start, spec))

    async def _start(self, spec: ContainerSpec) -> AttachedContainer:
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
            except Unavailable:
                raise  # what is to start would meet the same, after as long a wait for each of them
            except ExecutorError as error:
                logger.error("the container %s is left behind until the next start: %s", name, error)
            else:
                self._unremoved.discard(name)

    async def ensure_network(self, name: str) -> None:
        await self.networks.ensure(name)

    async def start_setup(self, spec: SetupSpec) -> DockerSetupContainer:
        start = partial(DockerSetupContainer.start, self._docker, spec, self._isolation)
        return await self.networks.with_network(spec.network, start)

    async def follow(self, container_id: str) -> FollowedContainer:
        return await FollowedContainer.open(self._docker, container_id, self._unremoved)

    async def list_containers(self, labels: Mapping[str, str]) -> Mapping[str, Mapping[str, str]]:
        filters = json.dumps({"label": [f"{name}={value}" for name, value in labels.items()]})
        async with translated():
            found = await self._docker.containers.list(all=1, filters=filters)
            return {container.id: container["Labels"] for container in found}

    async def remove_container(self, container_id: str) -> None:
        await remove_container(self._docker.containers.container(container_id))
