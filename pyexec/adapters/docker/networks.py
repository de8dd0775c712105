"""The engine's networks of programs and setups, one of each name."""

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Any, TypeVar

from aiodocker import Docker
from attrs import frozen

from pyexec.adapters.docker.errors import has_status, translated
from pyexec.errors import EngineError

INTERFACE_LETTERS_MAX = 15
"""Of the name of a network interface in Linux."""
ATTEMPTS = 5
_THERE = (HTTPStatus.CONFLICT, HTTPStatus.FORBIDDEN)
"""A network of this name, or on this bridge, exists, or is being made."""
_GONE_OR_USED = (HTTPStatus.NOT_FOUND, HTTPStatus.FORBIDDEN)

T = TypeVar("T")


@frozen
class Networks:
    """Its methods raise `EngineError` when the engine refuses, `Unavailable` when it is away."""

    _docker: Docker

    async def ensure(self, name: str) -> bool:
        """Makes a network of this name unless there is one; whether it did.

        Raises `EngineError` when there are several: no container starts in any of them."""
        for _ in range(ATTEMPTS):
            try:
                async with translated():
                    await self._docker.networks.create(network_config(name))
            except EngineError as error:
                if not has_status(error, _THERE):
                    raise
                refusal = error
            else:
                return True
            found = await self._named(name)
            if len(found) > 1:
                extra = " ".join(network["Id"][:12] for network in found[1:])
                raise EngineError(
                    f"Docker has {len(found)} networks named {name}; leave one of them: docker network rm {extra}"
                )
            if found:
                return False
        raise refusal

    async def remove(self, name: str) -> None:
        """Takes it away again; one that is in use stays."""
        try:
            async with translated():
                network = await self._docker.networks.get(name)
                await network.delete()
        except EngineError as error:
            if not has_status(error, _GONE_OR_USED):
                raise

    async def with_network(self, name: str | None, start: Callable[[], Awaitable[T]]) -> T:
        """What `start` returns, which starts a container in this network; it is made anew if it is missing, for
        `docker network prune` removes those that nobody is in at the moment."""
        try:
            return await start()
        except EngineError as error:
            if name is None or f"network {name} not found" not in str(error):
                raise
        await self.ensure(name)
        return await start()

    async def _named(self, name: str) -> Sequence[dict[str, Any]]:
        """Those of exactly this name, oldest first, but for the engine's own such as `host`."""
        async with translated():
            found = await self._docker.networks.list(filters={"name": name, "type": "custom"})
        named = [network for network in found if network["Name"] == name]
        return sorted(named, key=lambda network: (network["Created"], network["Id"]))


def network_config(name: str) -> dict[str, Any]:
    """The request's body for a network whose containers reach the world, and not each other.

    Its bridge has a name, too. Of two servers that make one network at the same moment Docker would give each its
    own, and no container could start: it only looks for names, but takes hold of a bridge. And a firewall's rules,
    which name the bridge, hold for a network that is made anew."""
    return {
        "Name": name,
        "CheckDuplicate": True,
        "Driver": "bridge",
        "Options": {
            "com.docker.network.bridge.name": _bridge(name),
            "com.docker.network.bridge.enable_icc": "false",
        },
        "Labels": {"pyexec.network": name},
    }


def _bridge(name: str) -> str:
    """The interface's name, as Docker's own would be, with the network's name or the start of its hash."""
    bridge = f"br-{name}"
    if len(bridge) <= INTERFACE_LETTERS_MAX:
        return bridge
    return f"br-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
