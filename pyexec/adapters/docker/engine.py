"""The container engine, on Docker 20.10 or later."""

import json
import logging
import re
import secrets
from collections.abc import Collection, Mapping
from datetime import datetime
from functools import partial
from http import HTTPStatus
from typing import Any, Final, Self

import anyio
from aiodocker import Docker
from aiodocker.containers import DockerContainer
from attrs import frozen

from pyexec.adapters.docker.client import (
    EtcFilesRemoved,
    close_client,
    has_status,
    open_client,
    parse_time,
    remove_container,
    translate_errors,
)
from pyexec.adapters.docker.config import SecurityOptions, container_config
from pyexec.adapters.docker.containers import AttachedContainer, DockerSetupContainer, FollowedContainer
from pyexec.adapters.docker.etc_files import EtcFiles
from pyexec.adapters.docker.images import DockerImages, VolumesOfImages
from pyexec.adapters.docker.networks import Firewall, Networks
from pyexec.adapters.docker.user_ids import UserIds, check_mapped_ids
from pyexec.domain.spec import MEBIBYTE
from pyexec.errors import EngineError, ExecutorError, SettingsError, Unavailable
from pyexec.metrics import NOOP_METER, Meter
from pyexec.ports import ContainerSpec, EngineIdentity, SetupSpec

logger = logging.getLogger(__name__)

CREATION_LABEL: Final = "pyexec.creation"
"""Label with a unique value for each container."""
ETC_RETRY_SECONDS: Final = (0.1, 0.2, 0.4, 0.8, 1.6)
"""Delays of the retries if files in /etc were removed: several servers, or an operator, may remove them repeatedly."""
_NAME_TAKEN: Final = (HTTPStatus.CONFLICT,)
_OWN_NAME: Final = re.compile(r"/pyexec-(uid-[0-9]+|(setup-)?[0-9a-f]{16})")
_LIMIT_OF_INFO: Final = {
    "MemoryLimit": "memory",
    "SwapLimit": "swap",
    "PidsLimit": "pids",
    "CPUShares": "cpu_shares",
    "CpuCfsQuota": "cpus",
}


@frozen(kw_only=True)
class DockerInfo:
    """Version and configuration of a Docker engine.

    `system_time` is the clock of its machine, `data_root` the directory of its images and containers. `filters_bridges`
    is False if iptables does not see traffic between containers of a network, which then cannot be blocked."""

    version: str
    api: str
    cgroup: str
    runtime: str
    data_root: str
    system_time: datetime | None
    filters_bridges: bool = True


class DockerEngine:
    """`ports.Engine` on a Docker daemon."""

    def __init__(self, docker: Docker, security: SecurityOptions, uids: range) -> None:
        self._docker = docker
        self._security = security
        self._uids = uids
        self.images = DockerImages(docker)
        self.networks = Networks(docker)
        self.firewall = Firewall(docker)
        self._volumes = VolumesOfImages(docker)
        self._etc = EtcFiles(docker, uids)
        self._user_ids = UserIds(docker, uids)
        self._unremoved: set[str] = set()
        """Ids of containers that may still exist, because Docker did not answer. The next start removes them."""
        self._unanswered: set[str] = set()
        """Labels of containers that may exist, because Docker did not answer the request that creates them."""

    @classmethod
    async def connect(
        cls,
        host: str,
        security: SecurityOptions,
        uids: range,
        timeout_seconds: float,
        meter: Meter = NOOP_METER,
    ) -> Self:
        """Return the engine at `host` (`unix:///path` or `tcp://host:port`); sends no request.

        Every sandbox gets one of the user ids `uids`, which no other sandbox on the engine has.

        A request that is not answered within `timeout_seconds` raises `Unavailable`.
        Raises `SettingsError` if `host` is not valid."""
        return cls(open_client(host, timeout_seconds, meter), security, uids)

    async def close(self) -> None:
        await close_client(self._docker)

    async def check(self) -> None:
        with translate_errors():
            await self._docker.version()

    async def identify(self) -> EngineIdentity:
        info, version = await self._query_info()
        unsupported = [limit for key, limit in _LIMIT_OF_INFO.items() if not info.get(key)]
        security_options = info.get("SecurityOptions") or ()
        check_mapped_ids(self._uids, security_options)
        has_seccomp = any("seccomp" in option for option in security_options)
        if not has_seccomp:
            unsupported.append("seccomp")
        self._security = self._security.on_engine(version["Arch"], has_seccomp=has_seccomp)
        runtime, runtimes = self._security.runtime, info.get("Runtimes", {})
        if runtime is not None and runtime not in runtimes:
            known = ", ".join(sorted(runtimes))
            raise SettingsError(f"PYEXEC_DOCKER_RUNTIME is {runtime!r}; this Docker engine knows {known}")
        return EngineIdentity(
            id=info["ID"],
            version=info["ServerVersion"],
            architecture=version["Arch"],
            cpus=info["NCPU"],
            memory_mb=info["MemTotal"] // MEBIBYTE,
            unsupported=unsupported,
        )

    async def info(self) -> DockerInfo:
        """Ask the engine for what a preflight check reports."""
        info, version = await self._query_info()
        return DockerInfo(
            version=info["ServerVersion"],
            api=version["ApiVersion"],
            cgroup=f"version {info.get('CgroupVersion', '1')} by {info.get('CgroupDriver', 'an unknown driver')}",
            runtime=info.get("DefaultRuntime", "runc"),
            data_root=info.get("DockerRootDir", ""),
            system_time=parse_time(info.get("SystemTime", "")),
            filters_bridges=info.get("BridgeNfIptables", True),
        )

    async def _query_info(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        with translate_errors():
            return await self._docker.system.info(), await self._docker.version()

    async def start(self, spec: ContainerSpec) -> AttachedContainer:
        await self._remove_unremoved()
        return await self.networks.with_network(spec.network, partial(self._start, spec))

    async def _start(self, spec: ContainerSpec) -> AttachedContainer:
        for seconds in ETC_RETRY_SECONDS:
            try:
                return await self._start_once(spec)
            except EtcFilesRemoved as error:
                logger.warning("start of a sandbox failed; retrying in %g s: %s", seconds, error)
            self._etc.forget()
            await anyio.sleep(seconds)
        return await self._start_once(spec)

    async def _start_once(self, spec: ContainerSpec) -> AttachedContainer:
        container = await self._create(spec)
        attached = AttachedContainer(container, self._unremoved, has_several_writers=spec.attachable)
        try:
            with translate_errors(image=spec.image):
                await attached.open()
                await container.start()
        except BaseException:
            with anyio.CancelScope(shield=True):
                await attached.remove()
            raise
        return attached

    async def _create(self, spec: ContainerSpec) -> DockerContainer:
        image = await self._volumes.find(spec.image_id or spec.image)
        used: Collection[int] = ()
        while True:
            user = self._user_ids.choose(used)
            etc_files = await self._etc.mounts(image, user.id, network=spec.network is not None)
            config = container_config(spec, self._security, user.id, etc_files, image)
            try:
                return await self._create_named(user.container, config, spec.image)
            except EngineError as error:
                if not has_status(error, _NAME_TAKEN):
                    raise
                used = await self._user_ids.list_used()

    async def _create_named(self, name: str, config: dict[str, Any], image: str) -> DockerContainer:
        # With this label, the container can be removed even if the response to its creation is lost. Its name may
        # belong to a container of another replica by then.
        label = secrets.token_hex(8)
        config["Labels"][CREATION_LABEL] = label
        try:
            with anyio.CancelScope(shield=True):
                with translate_errors(image=image):
                    container = await self._docker.containers.create(config, name=name)
        except BaseException as error:
            if not (isinstance(error, EngineError) and has_status(error, _NAME_TAKEN)):
                self._unanswered.add(label)
            raise
        return container

    async def _remove_unremoved(self) -> None:
        for label in tuple(self._unanswered):
            self._unremoved.update(await self.list_containers({CREATION_LABEL: label}))
            self._unanswered.discard(label)
        for container in tuple(self._unremoved):
            try:
                await remove_container(self._docker.containers.container(container))
            except Unavailable:
                raise  # the start would fail, too, after one more timeout for each container
            except ExecutorError as error:
                logger.error(
                    "container %s left behind; removal is retried at the next start: %s", container, error
                )
            else:
                self._unremoved.discard(container)

    async def ensure_network(self, name: str) -> None:
        await self.networks.ensure(name)

    async def start_setup(self, spec: SetupSpec) -> DockerSetupContainer:
        image = await self._volumes.find(spec.image)
        start = partial(DockerSetupContainer.start, self._docker, spec, self._security, image)
        return await self.networks.with_network(spec.network, start)

    async def follow(self, container_id: str) -> FollowedContainer:
        return await FollowedContainer.open(self._docker, container_id, self._unremoved)

    async def attach(self, container_id: str) -> AttachedContainer:
        docker_container = self._docker.containers.container(container_id)
        container = AttachedContainer(docker_container, self._unremoved, has_several_writers=True)
        await container.attach()
        return container

    async def list_containers(self, labels: Mapping[str, str]) -> Mapping[str, Mapping[str, str]]:
        filters = json.dumps({"label": [f"{name}={value}" for name, value in labels.items()]})
        with translate_errors():
            found = await self._docker.containers.list(all=1, filters=filters)
            # A container can inherit labels from an image that anyone has made, but not its name.
            own = [container for container in found if any(map(_OWN_NAME.fullmatch, container["Names"]))]
            return {container.id: container["Labels"] for container in own}

    async def remove_container(self, container_id: str) -> None:
        await remove_container(self._docker.containers.container(container_id))
