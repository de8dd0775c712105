"""A real Nomad in dev mode, built from its module: one server and one client, with the Docker of this machine."""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anyio
from anyio import to_thread
from attrs import frozen

from tests.support.api import pause
from tests.support.consul import Agent, free_ports
from tests.support.deployment import RIGHTS
from tests.support.engine_proxy import EngineProxy
from tests.support.paths import ROOT

START_SECONDS = 60
STOP_SECONDS = 60
DYNAMIC_PORTS = 15_000, 19_999  # not those of `free_ports`
CONFIG = """\
disable_update_check = true
data_dir = "{directory}/data"
ports {{
  http = {http}
  rpc  = {rpc}
  serf = {serf}
}}
consul {{
  address = "{consul}"
}}
client {{
  network_interface = "docker0" # its address can be reached from containers
  min_dynamic_port  = {ports[0]}
  max_dynamic_port  = {ports[1]}
  options = {{
    "fingerprint.denylist" = "env_aws,env_gce,env_azure,env_digitalocean"
  }}
}}
plugin "docker" {{
  config {{
    endpoint         = "unix://{directory}/docker.sock"
    allow_privileged = true
    volumes {{
      enabled = true
    }}
    gc {{
      image = false # the images belong to the tests
    }}
  }}
}}
"""


@frozen
class Nomad:
    """A running agent, and its HTTP API."""

    address: str
    http: aiohttp.ClientSession

    async def run(self, *arguments: str) -> str:
        """Run a `nomad` command; return its output. Fail if the command fails."""
        environment = {**os.environ, "NOMAD_ADDR": self.address}
        command = [str(await to_thread.run_sync(binary)), *arguments]
        done = await anyio.run_process(command, env=environment, stderr=subprocess.STDOUT, check=False)
        assert done.returncode == 0, f"nomad {shlex.join(arguments)}:\n{done.stdout.decode()}"
        return done.stdout.decode()

    async def get(self, path: str) -> Any:
        """Return the document at a path of the HTTP API, without the prefix `/v1/`."""
        async with self.http.get(f"{self.address}/v1/{path}") as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def allocations(self, *statuses: str) -> Sequence[Mapping[str, Any]]:
        """Return all allocations whose client status is one of `statuses`."""
        return [each for each in await self.get("allocations") if each["ClientStatus"] in statuses]

    async def until_stopped(self) -> None:
        """Wait until no allocation is pending or running."""
        with anyio.fail_after(STOP_SECONDS):
            while await self.allocations("pending", "running"):
                await pause()


def binary() -> Path:
    """Return the path of the Nomad binary; build it if necessary."""
    command = [sys.executable, str(ROOT / "dev" / "nomad.py")]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return Path(printed.splitlines()[-1])


@asynccontextmanager
async def running_nomad(consul: Agent) -> AsyncIterator[Nomad]:
    """Run an agent that registers services in this Consul; stop it and all its allocations at the end."""
    program = await to_thread.run_sync(binary)
    ports = free_ports(["http", "rpc", "serf"])
    with _running_agent(program, consul, ports) as agent:
        async with aiohttp.ClientSession() as http:
            nomad = Nomad(f"http://127.0.0.1:{ports['http']}", http)
            with anyio.fail_after(START_SECONDS):
                while not await _can_run_docker(nomad):
                    assert agent.poll() is None, "the agent has ended"
                    await pause()
            yield nomad


@contextmanager
def _running_agent(
    program: Path, consul: Agent, ports: Mapping[str, int]
) -> Iterator["subprocess.Popen[bytes]"]:
    # Not pytest's directory: the path of a socket must be short.
    with tempfile.TemporaryDirectory(prefix="pyexec-nomad-") as name:
        directory = Path(name)
        config = directory / "nomad.hcl"
        text = CONFIG.format(directory=directory, consul=consul.address, ports=DYNAMIC_PORTS, **ports)
        config.write_text(text)
        proxy = EngineProxy(directory / "docker.sock", allow_privileged)
        proxy.start()
        # With AWS_CA_BUNDLE, the agent does not start.
        environment = {name: value for name, value in os.environ.items() if name != "AWS_CA_BUNDLE"}
        command = [program, "agent", "-dev", f"-config={config}"]
        with (consul.directory.parent / "nomad.log").open("wb") as log:
            agent = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
            )
        try:
            yield agent
        finally:
            _keep_logs(directory / "data" / "alloc", consul.directory.parent / "allocations")
            agent.terminate()  # in dev mode, it stops its allocations and deletes their directories
            try:
                agent.wait(STOP_SECONDS)
            finally:
                agent.kill()
                proxy.stop()


def _keep_logs(allocations: Path, target: Path) -> None:
    """Copy the logs of all tasks to pytest's directory, where they are kept after a failure."""
    for log in allocations.glob("*/alloc/logs/*"):
        if log.is_file():
            copy = target / log.relative_to(allocations).parts[0][:8] / log.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(log, copy)


async def _can_run_docker(nomad: Nomad) -> bool:
    """Return True if the client is ready and its Docker driver healthy."""
    try:
        nodes = await nomad.get("nodes")
    except (aiohttp.ClientError, AssertionError):  # the server has no leader yet
        return False
    return any(node["Status"] == "ready" and node["Drivers"]["docker"]["Healthy"] for node in nodes)


def allow_privileged(container: Any) -> None:
    """Replace `privileged`, which this machine may not allow, by the rights in `RIGHTS`, with the machine's dockerd."""
    host = container["HostConfig"]
    if not host.get("Privileged"):
        return
    words = shlex.split(RIGHTS)
    host |= {
        "Privileged": False,
        "CapAdd": ["ALL"],
        "CapDrop": ["SYS_RESOURCE"],
        "CgroupnsMode": "host",
        "SecurityOpt": ["seccomp=unconfined", "apparmor=unconfined"],
        "MaskedPaths": [],
        "ReadonlyPaths": [],
        "Binds": [
            *(host.get("Binds") or ()),
            *(words[n + 1] for n, word in enumerate(words) if word == "--volume"),
        ],
    }
    container["Volumes"] = {"/var/lib/docker": {}}  # as in the image docker:dind
