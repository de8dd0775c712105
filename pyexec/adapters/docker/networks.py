"""The Docker networks of programs and setups: one network for each name."""

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Any, TypeVar

from aiodocker import Docker
from attrs import frozen

from pyexec.adapters.docker.client import has_status, translate_errors
from pyexec.errors import EngineError

INTERFACE_NAME_MAX = 15
"""Linux limits names of network interfaces to this many characters."""
ATTEMPTS = 5
NETWORK_LABEL = "pyexec.network"
_EXISTS = (HTTPStatus.CONFLICT, HTTPStatus.FORBIDDEN)
"""A network of this name, or with this bridge, exists or is being created."""
_GONE_OR_IN_USE = (HTTPStatus.NOT_FOUND, HTTPStatus.FORBIDDEN)

T = TypeVar("T")


@frozen
class Networks:
    """Creates and removes networks.

    The methods raise `EngineError` if the engine refuses, and `Unavailable` if it does not answer."""

    _docker: Docker

    async def ensure(self, name: str) -> bool:
        """Create a network with this name, unless it exists. Return True if it was created.

        Raises `EngineError` if several have this name: Docker starts no container in any of them."""
        for _ in range(ATTEMPTS):
            try:
                with translate_errors():
                    await self._docker.networks.create(network_config(name))
            except EngineError as error:
                if not has_status(error, _EXISTS):
                    raise
                refusal = error
            else:
                return True
            found = await self._named(name)
            if len(found) > 1:
                extra = " ".join(network["Id"][:12] for network in found[1:])
                raise EngineError(
                    f"Docker has {len(found)} networks named {name}; keep only one: docker network rm {extra}"
                )
            if found:
                return False
        raise refusal

    async def remove(self, name: str) -> None:
        """Remove the network, unless it is in use or does not exist."""
        try:
            with translate_errors():
                network = await self._docker.networks.get(name)
                await network.delete()
        except EngineError as error:
            if not has_status(error, _GONE_OR_IN_USE):
                raise

    async def with_network(self, name: str | None, start: Callable[[], Awaitable[T]]) -> T:
        """Return the result of `start`, which starts a container in the network `name`.

        If the network is missing, create it and try again: `docker network prune` removes unused networks."""
        try:
            return await start()
        except EngineError as error:
            if name is None or f"network {name} not found" not in str(error):
                raise
        await self.ensure(name)
        return await start()

    async def _named(self, name: str) -> Sequence[dict[str, Any]]:
        """Return the networks with exactly this name, oldest first, without predefined ones such as `host`."""
        with translate_errors():
            found = await self._docker.networks.list(filters={"name": name, "type": "custom"})
        named = [network for network in found if network["Name"] == name]
        return sorted(named, key=lambda network: (network["Created"], network["Id"]))


def network_config(name: str) -> dict[str, Any]:
    """Return the request for a network whose containers reach the internet, but not each other.

    The bridge gets a name, too. If several servers create the network at the same time, all but one fail: Docker
    enforces unique bridges, but not unique network names. And firewall rules for the bridge stay valid if the
    network is created again."""
    return {
        "Name": name,
        "CheckDuplicate": True,
        "Driver": "bridge",
        "Options": {
            "com.docker.network.bridge.name": _bridge_name(name),
            "com.docker.network.bridge.enable_icc": "false",
        },
        "Labels": {NETWORK_LABEL: name},
    }


def _bridge_name(name: str) -> str:
    """Return `br-` and the name of the network, or the start of its hash if it is too long."""
    bridge = f"br-{name}"
    if len(bridge) <= INTERFACE_NAME_MAX:
        return bridge
    return f"br-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
