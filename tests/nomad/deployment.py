"""A job of `nomad/` on a real Nomad, and queries to Nomad, Consul and Docker about it."""

import base64
import subprocess
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
from anyio import to_thread
from attrs import frozen

from tests.support.consul import Agent
from tests.support.containers import containers
from tests.support.images import docker
from tests.support.load import Load
from tests.support.nomad import Nomad
from tests.support.paths import ROOT

REPLICAS_SECONDS = 90
WATCH_SECONDS = 10
ALLOCATION = "com.hashicorp.nomad.alloc_id"
"""The label of Nomad's containers."""


@frozen
class Deployment:
    """One job file with the variables of a test. The job's name is that of the file."""

    job: str
    count: int
    variables: Mapping[str, str]
    nomad: Nomad
    consul: Agent

    def options(self, image: str) -> Sequence[str]:
        """Return the options and the file for `nomad job run` and `nomad job validate`."""
        values = {"image": image, "count": str(self.count), **self.variables}
        return [*(f"-var={name}={value}" for name, value in values.items()), str(self.file)]

    @property
    def file(self) -> Path:
        return ROOT / "nomad" / f"{self.job}.nomad.hcl"

    async def run(self, image: str) -> Mapping[str, Any]:
        """Run the job with this image, and wait until its deployment has succeeded; return the deployment."""
        await self.nomad.run("job", "run", *self.options(image))
        deployment: Mapping[str, Any] = await self.nomad.get(f"job/{self.job}/deployment")
        assert deployment["Status"] == "successful", deployment
        return deployment

    async def urls(self, index: int = 0) -> tuple[int, Sequence[str]]:
        """Return the addresses of the replicas that pass Consul's checks. Wait until Consul's index is not `index`."""
        query = f"health/service/pyexec?passing=1&index={index}&wait={WATCH_SECONDS}s"
        async with self.nomad.http.get(f"http://{self.consul.address}/v1/{query}") as answer:
            services = [entry["Service"] for entry in await answer.json()]
            urls = sorted(f"http://{service['Address']}:{service['Port']}" for service in services)
            return int(answer.headers["X-Consul-Index"]), urls

    async def until_ready(self) -> Sequence[str]:
        """Wait until all replicas pass their checks; return their addresses."""
        with anyio.fail_after(REPLICAS_SECONDS):
            index, urls = await self.urls()
            while len(urls) != self.count:
                index, urls = await self.urls(index)
        return urls

    async def balance(self, load: Load) -> None:
        """Send the load to the replicas that pass their checks, as a load balancer does. Run until cancelled."""
        index = 0
        while True:
            index, urls = await self.urls(index)
            load.urls = urls or load.urls

    async def key(self, path: str) -> Sequence[Mapping[str, Any]]:
        """Return the entries of a key in Consul."""
        async with self.nomad.http.get(f"http://{self.consul.address}/v1/kv/pyexec/{path}") as answer:
            return [] if answer.status == 404 else await answer.json()

    async def deployment_id(self) -> str:
        """Return the label that the replicas' sandboxes have."""
        (entry,) = await self.key("deployment")
        return base64.b64decode(entry["Value"]).decode()

    async def tasks(self) -> Collection[str]:
        """Return the containers of all tasks that Nomad has started, running or not."""
        allocations = await self.nomad.get("allocations")
        labels = {each["ID"] for each in allocations}
        listed = await to_thread.run_sync(
            docker,
            "ps",
            "--all",
            f"--filter=label={ALLOCATION}",
            "--format",
            f'{{{{.ID}}}}={{{{.Label "{ALLOCATION}"}}}}',
        )
        return [found[0] for found in (each.split("=") for each in listed) if found[1] in labels]

    async def inspect(self, template: str) -> Collection[str]:
        """Return what `docker inspect` prints for all tasks with this template, in words."""
        tasks = await self.tasks()
        return (
            set(await to_thread.run_sync(docker, "inspect", "--format", template, *tasks)) if tasks else set()
        )

    async def volumes(self) -> Collection[str]:
        """Return the Docker volumes of all tasks."""
        return await self.inspect("{{range .Mounts}}{{if .Name}}{{.Name}} {{end}}{{end}}")

    async def leftovers(self, deployment_id: str, volumes: Collection[str]) -> Mapping[str, object]:
        """Return what is left of the job after its end: containers, volumes, and registrations in Consul."""
        existing = await to_thread.run_sync(docker, "volume", "ls", "--quiet")
        leader = await self.key("leader")
        _, urls = await self.urls()
        found: Mapping[str, object] = {
            "tasks": await self.tasks(),
            "sandboxes": await containers(deployment_id),
            "volumes": {*volumes} & {*existing},
            "services": urls,
            "members": await self.key("replicas/?recurse"),
            "leader": [entry for entry in leader if entry.get("Session")],
        }
        return {name: value for name, value in found.items() if value}


def second_image(first: str) -> str:
    """Create another version of an image, with another tag and another id; return its name."""
    name = f"{first}-next"
    subprocess.run(
        ["docker", "build", "--quiet", "--network=none", f"--tag={name}", "-"],
        input=f"FROM {first}\nLABEL pyexec.test.next=1\n",
        text=True,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return name
