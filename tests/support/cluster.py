"""Several real servers on one Consul and one Docker engine. Tests can kill, stop, suspend and restart them."""

import base64
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import anyio
from anyio import to_thread
from attrs import define, field

from tests.support.consul import Agent, free_ports
from tests.support.containers import until_containers, until_no_others
from tests.support.processes import resume, suspend
from tests.support.server import Server, running_server

SETTINGS = {
    "max_concurrent": "2",
    "warm_pool": "1",
    "default_memory_mb": "64",
    "default_disk_mb": "16",
    "stop_timeout": "2",
    "max_queued": "1000",
    "adoption_grace": "40",
}
WATCH_SECONDS = 60


@define
class Replica:
    """One server with a fixed address. Each start is a new process with its own data directory and log."""

    name: str
    url: str
    directory: Path
    image: str
    settings: Mapping[str, str]
    starts: int = 0
    server: Server | None = None
    _stack: ExitStack = field(factory=ExitStack)

    async def start(self) -> None:
        """Start the server, and wait until it accepts work."""
        self.starts += 1
        data = self.directory / f"{self.name}-{self.starts}"
        context = running_server(data, self.image, **self.settings)
        self.server = await to_thread.run_sync(self._stack.enter_context, context)

    async def term(self) -> None:
        """Send SIGTERM, and wait until the server has exited."""
        await to_thread.run_sync(self._stack.close)
        self.server = None

    async def kill(self) -> None:
        """Kill the server with SIGKILL, like a crash."""
        self._process().kill()
        await self.term()

    def pause(self) -> None:
        """Suspend the server with SIGSTOP."""
        suspend(self._process())

    def resume(self) -> None:
        resume(self._process())

    @property
    def pid(self) -> int:
        return self._process().pid

    def logs(self) -> str:
        """Return the logs of all its processes."""
        return "".join(
            (self.directory / f"{self.name}-{n}.log").read_text() for n in range(1, self.starts + 1)
        )

    def _process(self) -> Any:
        assert self.server is not None, f"{self.name} does not run"
        return self.server.process


class Cluster:
    """All replicas, and queries to Consul about them."""

    def __init__(
        self,
        agents: Sequence[Agent],
        replicas: Sequence[Replica],
        http: aiohttp.ClientSession,
        engine: str | None = None,
    ) -> None:
        self.agents = agents
        self.replicas = replicas
        self.engine = engine
        self.prefix = "pyexec"
        self._http = http

    @property
    def urls(self) -> Sequence[str]:
        """The URLs of all replicas, running or not."""
        return [replica.url for replica in self.replicas]

    async def deployment(self) -> str:
        """Return the deployment id, which its containers have as a label."""
        _, entry = await self.entry("deployment")
        assert entry is not None
        return base64.b64decode(entry["Value"]).decode()

    async def members(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the documents that the members have written, by replica id."""
        entries = await self._ask("replicas/?recurse")
        documents = [json.loads(base64.b64decode(entry["Value"])) for entry in entries[1] or ()]
        return {document["replica"]: document for document in documents}

    async def leader_id(self, *, other_than: str | None = None) -> str:
        """Wait until a replica other than `other_than` leads; return its id."""
        index = 0
        while True:
            index, entry = await self.entry("leader", index)
            if entry is not None and entry.get("Session"):
                leader = base64.b64decode(entry["Value"]).decode()
                if leader != other_than:
                    return leader

    async def leader(self) -> Replica:
        """Return the leader."""
        leader, members = await self.leader_id(), await self.members()
        return next(r for r in self.replicas if r.url == members[leader]["address"])

    async def id_of(self, replica: Replica) -> str:
        """Return the id of a member."""
        members = await self.members()
        return next(name for name, document in members.items() if document["address"] == replica.url)

    async def until_recovered(self) -> None:
        """Wait until the running replicas have adopted or removed all containers of dead replicas."""
        index, running = 0, sum(replica.server is not None for replica in self.replicas)
        while len(members := await self.members()) != running:
            index, _ = await self._ask(f"replicas/?recurse&index={index}&wait={WATCH_SECONDS}s")
        await until_no_others(await self.deployment(), members.keys(), host=self.engine)

    async def until_member(self, replica: str) -> None:
        """Wait until the replica is a member."""
        index = 0
        while replica not in await self.members():
            index, _ = await self._ask(f"replicas/?recurse&index={index}&wait={WATCH_SECONDS}s")

    async def end_consul_session(self, replica: str) -> None:
        """End the Consul session of a replica, as its TTL does."""
        _, entry = await self.entry(f"replicas/{replica}")
        url = f"http://{self.agents[0].address}/v1/session/destroy/{entry['Session']}"
        async with self._http.put(url) as answer:
            assert answer.status == 200

    async def entry(self, key: str, index: int = 0) -> tuple[int, Any]:
        """Return the index and the entry of a key. Wait until the index is larger than `index`."""
        index, entries = await self._ask(f"{key}?index={index}&wait={WATCH_SECONDS}s")
        return index, entries[0] if entries else None

    async def _ask(self, path: str) -> tuple[int, Any]:
        """Send a request to the first agent that answers."""
        for agent in self.agents:
            try:
                async with self._http.get(f"http://{agent.address}/v1/kv/{self.prefix}/{path}") as answer:
                    if answer.status not in (200, 404):
                        continue
                    entries = await answer.json() if answer.status == 200 else None
                    return int(answer.headers["X-Consul-Index"]), entries
            except aiohttp.ClientError:
                continue
        raise RuntimeError("no Consul agent answers")

    async def stop(self) -> None:
        """Stop all replicas, and check that no containers remain, not even those of dead replicas."""
        await self.until_recovered()
        deployment = await self.deployment()
        async with anyio.create_task_group() as tasks:
            for replica in self.replicas:
                if replica.server is not None:
                    tasks.start_soon(replica.term, name=f"stop {replica.name}")
        await until_containers(deployment, 0, host=self.engine)


@asynccontextmanager
async def running_cluster(
    directory: Path,
    image: str,
    agents: Sequence[Agent],
    size: int = 3,
    engine: str | None = None,
    **settings: str,
) -> AsyncIterator[Cluster]:
    """Start `size` replicas, distributed over the `agents`. Replicas that still run at the end are killed."""
    if engine is not None:
        settings["docker_host"] = engine
    ports = free_ports([f"replica-{n}" for n in range(size)])
    replicas = []
    for n, (name, port) in enumerate(ports.items()):
        own = {"port": str(port), "consul_addr": agents[n % len(agents)].address}
        address = f"http://127.0.0.1:{port}"
        replicas.append(Replica(name, address, directory, image, {**SETTINGS, **settings, **own}))
    timeout = aiohttp.ClientTimeout(total=WATCH_SECONDS * 2)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        try:
            async with anyio.create_task_group() as tasks:
                for replica in replicas:
                    tasks.start_soon(replica.start, name=f"start {replica.name}")
            yield Cluster(agents, replicas, http, engine)
        finally:
            with anyio.CancelScope(shield=True):
                await _end(replicas)


async def _end(replicas: Sequence[Replica]) -> None:
    """Kill the replicas that a test has left running."""
    for replica in replicas:
        if replica.server is not None and replica.server.process.poll() is None:
            resume(replica.server.process)
    for replica in replicas:
        await to_thread.run_sync(partial(_close, replica))


def _close(replica: Replica) -> None:
    if replica.server is not None and replica.server.process.poll() is None:
        replica.server.process.kill()
        replica._stack.close()
