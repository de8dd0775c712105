"""What can be asked of a Docker Engine before a server uses it."""

from collections.abc import Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Any

import aiohttp
from aiodocker import Docker
from aiodocker.exceptions import DockerError
from attrs import frozen

from pyexec.adapters.docker.clock import moment
from pyexec.adapters.docker.errors import error_of, translated
from pyexec.errors import ImageUnavailable


@frozen(kw_only=True)
class EngineFacts:
    """What the engine says of itself. `clock` is its machine's time, where it tells that."""

    version: str
    api: str
    cgroup: str
    runtime: str
    clock: datetime | None


@frozen
class DockerSurvey:
    """Its methods raise `EngineError` when the engine refuses, `Unavailable` when it is away."""

    _docker: Docker

    async def facts(self) -> EngineFacts:
        """Who it is."""
        async with translated():
            info: Mapping[str, Any] = await self._docker.system.info()
            version = await self._docker.version()
        return EngineFacts(
            version=info["ServerVersion"],
            api=version["ApiVersion"],
            cgroup=f"version {info.get('CgroupVersion', '1')} by {info.get('CgroupDriver', 'an unknown driver')}",
            runtime=info.get("DefaultRuntime", "runc"),
            clock=moment(info.get("SystemTime", "")),
        )

    async def check_pullable(self, name: str) -> None:
        """Asks the image's registry, and fetches nothing. Raises `ImageUnavailable`, saying why it cannot be had."""
        try:
            await self._docker._query_json(f"distribution/{name}/json")
        except DockerError as error:
            if error.status >= HTTPStatus.BAD_REQUEST and error.status < 600:
                raise ImageUnavailable(f"its registry says: {error.message}") from error
            raise error_of(error) from error
        except aiohttp.ClientError as error:
            raise ImageUnavailable(f"its registry cannot be asked: {error}") from error
