"""The Docker networks of programs and setups, and their firewall rules (docs/security.md)."""

import hashlib
import os
import re
import secrets
import shutil
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from importlib import resources
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio
from aiodocker import Docker
from attrs import frozen

from pyexec.adapters.docker.client import has_status, remove_container, request_timeout, translate_errors
from pyexec.errors import EngineError

INTERFACE_NAME_MAX = 15
"""Linux limits names of network interfaces to this many characters."""
ATTEMPTS = 5
_BRIDGE_OPTION: Final = "com.docker.network.bridge.name"
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
            _BRIDGE_OPTION: _bridge_name(name),
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


FIREWALL_SECONDS_MAX: Final = 30.0
_OWN_ID: Final = re.compile(r"/containers/([0-9a-f]{64})/hostname /etc/hostname ")
"""Matches this mount, which only a container has: that of its own /etc/hostname. The mount table of the machine
contains other mounts of containers."""
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_IN_HOST: Final = (
    "import os, sys; os.chroot('/host'); os.chdir('/'); "
    "os.execv('/bin/sh', ['sh', '-c', sys.argv[1], 'firewall.sh', 'up'])"
)


@frozen
class Firewall:
    """Runs firewall.sh on the engine's machine: directly, or in a helper container."""

    _docker: Docker

    async def apply(self, network: str, allowed: Sequence[str]) -> None:
        """Add the rules for a network. `allowed` are services of the host that stay reachable, as ADDRESS:PORT.

        Raises `EngineError` with the reason if that is not possible: the server does not run on the engine's machine as
        root or in a container, the machine has no iptables, or an operator has created the network."""
        with translate_errors():
            details = await (await self._docker.networks.get(network)).show()
        if NETWORK_LABEL not in (details.get("Labels") or {}):
            raise EngineError(f"the network {network} was not created by the server")
        bridge = (details.get("Options") or {}).get(_BRIDGE_OPTION) or f"br-{details['Id'][:12]}"
        environment = {"PATH": _PATH, "NETWORKS": f"{network}={bridge}", "ALLOWED": " ".join(allowed)}
        script = resources.files("pyexec.adapters.docker").joinpath("firewall.sh").read_text("utf-8")
        try:
            with anyio.fail_after(FIREWALL_SECONDS_MAX):
                if _is_administrator_of(bridge):
                    await _run(script, environment)
                else:
                    await self._run_in_helper(script, environment)
        except TimeoutError as error:
            raise EngineError(f"firewall.sh timed out after {FIREWALL_SECONDS_MAX:g} s") from error

    async def _run_in_helper(self, script: str, environment: Mapping[str, str]) -> None:
        """Run the script with the machine's own iptables, in a container of the server's own image.

        No other image is trusted with the machine's network."""
        image = await self._own_image()
        name = f"pyexec-firewall-{secrets.token_hex(8)}"
        container = self._docker.containers.container(name)
        try:
            with anyio.CancelScope(
                shield=True
            ):  # Docker may have created it although the request was cancelled
                with translate_errors():
                    await self._docker.containers.create(
                        _helper_config(image, script, environment), name=name
                    )
            with translate_errors():
                await container.start()
                status = (await container.wait())["StatusCode"]
                output = await container.log(stdout=True, stderr=True)
        finally:
            with anyio.CancelScope(shield=True):
                await remove_container(container)
        if status != 0:
            raise EngineError(f"firewall.sh failed in a helper container: {''.join(output).strip()[:300]}")

    async def _own_image(self) -> str:
        """Return the image of the container in which this server runs."""
        found = _OWN_ID.search(await anyio.Path("/proc/self/mountinfo").read_text())
        if found is None:
            raise EngineError("the server runs neither as root on Docker's machine nor in a container")
        with request_timeout(self._docker):
            return str((await self._docker.containers.container(found[1]).show())["Image"])


def _is_administrator_of(bridge: str) -> bool:
    """Return True if this process may change the firewall of the machine that has this bridge."""
    return (
        os.geteuid() == 0
        and bool(shutil.which("iptables", path=_PATH))
        and Path("/sys/class/net", bridge).exists()
    )


async def _run(script: str, environment: Mapping[str, str]) -> None:
    done = await anyio.run_process(
        ["/bin/sh", "-c", script, "firewall.sh", "up"], env=environment, check=False
    )
    if done.returncode != 0:
        raise EngineError(f"firewall.sh failed: {done.stderr.decode('utf-8', 'replace').strip()[:300]}")


def _helper_config(image: str, script: str, environment: Mapping[str, str]) -> Mapping[str, Any]:
    return {
        "Image": image,
        "Entrypoint": [sys.executable],
        "Cmd": ["-I", "-S", "-c", _IN_HOST, script],
        "User": "0:0",
        "Env": [f"{name}={value}" for name, value in environment.items()],
        "Labels": {"pyexec.firewall": "helper"},
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            "NetworkMode": "host",
            "UsernsMode": "host",
            "CapDrop": ["ALL"],
            "CapAdd": ["NET_ADMIN", "NET_RAW", "SYS_CHROOT"],
            "SecurityOpt": ["no-new-privileges:true"],
            "Mounts": [{"Type": "bind", "Source": "/", "Target": "/host", "ReadOnly": True}],
        },
    }
