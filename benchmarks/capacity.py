"""Cost of one run and of waiting, per component: processor time, memory, Consul transactions.

These figures hold on a busy machine, too; docs/capacity.md builds on them."""

import asyncio
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.request import urlopen

import anyio
from attrs import frozen

from benchmarks.latency import ConsulWarmSync
from benchmarks.long_polls import PollingClient, polling_client
from benchmarks.report import Measurement, Section
from benchmarks.resource_usage import ControlGroup, control_group, cpu_seconds, memory_bytes
from benchmarks.service import POOL_SIZE, Service, running_service
from tests.support.consul import Agent, durable_agent
from tests.support.daemon import own_daemon

RUNS = 40
IDLE_SECONDS = 10.0
POLLS = 1000
MIB = 1024 * 1024
SLEEP = "import time; time.sleep(3600)"
SETTINGS = {"run_network": "none", "setup_network": "none", "stop_timeout": "0"}


@frozen(kw_only=True)
class DedicatedEngine:
    """A Docker Engine for this benchmark, with its own processes in one control group and its sandboxes in another."""

    host: str
    processes: ControlGroup
    sandboxes: ControlGroup


@frozen
class Components:
    """The components whose usage is measured."""

    engine: DedicatedEngine
    agent: Agent
    service: Service

    def usage(self) -> Mapping[str, float]:
        """Return the processor seconds of each component so far, and the entries of Consul's Raft log."""
        return {
            "server": cpu_seconds(self.service.server.process.pid),
            "Docker": self.engine.processes.cpu_seconds(),
            "sandboxes": self.engine.sandboxes.cpu_seconds(),
            "Consul": cpu_seconds(_pid(self.agent)),
            "Raft entries": raft_entries(self.agent),
        }

    def usage_of(self, work: Callable[[], None]) -> Mapping[str, float]:
        """Return the usage from the start of `work` until the service is idle again."""
        self.service.wait_until_idle()
        before = self.usage()
        work()
        self.service.wait_until_idle()
        return {name: now - before[name] for name, now in self.usage().items()}


def measure_capacity(image: str) -> Section:
    """Measure memory when idle, the cost of runs and of long polls. Takes about a minute and a half."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pyexec-bench-")))
        agent = stack.enter_context(durable_agent(directory / "consul"))
        engine = stack.enter_context(dedicated_engine(image))
        settings = {**SETTINGS, "consul_addr": agent.address, "docker_host": engine.host}
        service = stack.enter_context(running_service(image, **settings))
        components = Components(engine, agent, service)
        row = ConsulWarmSync(service)
        row.run()
        measurements = [*_idle_memory(components), *_cost_of_runs(components, row)]
        measurements.append(asyncio.run(_memory_of_long_polls(service)))
    return Section(title="Capacity: cost of a run and of waiting", measurements=measurements)


def _idle_memory(components: Components) -> list[Measurement]:
    """Measure the memory of an idle replica and of its idle sandboxes."""
    components.service.wait_until_idle()
    replica = memory_bytes(components.service.server.process.pid) / MIB
    shims = sum(memory_bytes(pid) for pid in _shims(components.engine.processes)) / MIB
    sandboxes = components.engine.sandboxes.memory_bytes() / MIB
    return [
        Measurement(name="memory of an idle replica", value=replica, unit="MiB", at_most=120),
        Measurement(name="memory of an idle sandbox", value=sandboxes / POOL_SIZE, unit="MiB", at_most=32),
        Measurement(name="memory of its containerd shim", value=shims / POOL_SIZE, unit="MiB", at_most=32),
    ]


def _cost_of_runs(components: Components, row: ConsulWarmSync) -> list[Measurement]:
    """Measure an idle second and one run, which includes the start and removal of a sandbox."""
    stored_before = stored_bytes(components.agent)
    idle = components.usage_of(lambda: time.sleep(IDLE_SECONDS))
    started = time.monotonic()
    usage = components.usage_of(lambda: _run_repeatedly(row))
    seconds = time.monotonic() - started
    per_run = {name: (usage[name] - idle[name] / IDLE_SECONDS * seconds) / RUNS for name in usage}
    bounds_ms = {"server": 40, "Docker": 500, "sandboxes": 400, "Consul": 20}
    costs = [
        Measurement(
            name=f"processor time per run, {name}", value=per_run[name] * 1000, unit="ms", at_most=most
        )
        for name, most in bounds_ms.items()
    ]
    idle_ms = {name: idle[name] / IDLE_SECONDS * 1000 for name in ("server", "Consul")}
    return [
        *costs,
        Measurement(
            name="Consul transactions per run", value=round(per_run["Raft entries"]), unit="", at_most=2
        ),
        Measurement(
            name="bytes in Consul per run",
            value=(stored_bytes(components.agent) - stored_before) / RUNS,
            unit="",
            at_most=4096,
        ),
        Measurement(
            name="processor time per idle second, server", value=idle_ms["server"], unit="ms", at_most=50
        ),
        Measurement(
            name="processor time per idle second, Consul", value=idle_ms["Consul"], unit="ms", at_most=100
        ),
    ]


def _run_repeatedly(row: ConsulWarmSync) -> None:
    for _ in range(RUNS):
        row.run()


async def _memory_of_long_polls(service: Service) -> Measurement:
    """Measure the server's memory per long poll, with many long polls on one execution."""
    pid = service.server.process.pid
    async with polling_client(service.server.url) as client:
        execution_id = await client.api.accepted(SLEEP)
        before = memory_bytes(pid)
        async with anyio.create_task_group() as tasks:
            for number in range(POLLS):
                tasks.start_soon(_poll, client, execution_id, name=f"long poll {number}")
            await client.wait_until_polling(execution_id, POLLS)
            per_poll = (memory_bytes(pid) - before) / POLLS / 1024
            await client.api.kill(execution_id)
        service.record_activity()
    return Measurement(name="server memory per long poll", value=per_poll, unit="KiB", at_most=128)


async def _poll(client: PollingClient, execution_id: str) -> None:
    await client.long_poll(execution_id)


@contextmanager
def dedicated_engine(image: str) -> Iterator[DedicatedEngine]:
    name = f"pyexec-bench-{os.getpid()}"
    with (
        control_group(name, with_subgroups=True),
        control_group(f"{name}/engine") as processes,
        control_group(f"{name}/sandboxes", with_subgroups=True) as sandboxes,
        own_daemon(image, f"--cgroup-parent=/{sandboxes.name}") as daemon,
    ):
        if daemon.process is None or daemon.containerd is None:
            raise RuntimeError("the Docker Engine is not running")
        for process in (daemon.process, daemon.containerd):
            processes.add(process.pid)
        yield DedicatedEngine(host=daemon.host, processes=processes, sandboxes=sandboxes)


def _shims(processes: ControlGroup) -> Iterator[int]:
    """Yield the ids of containerd's shim processes, one per container."""
    for pid in processes.pids():
        if b"containerd-shim" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]:
            yield pid


def _pid(agent: Agent) -> int:
    if agent.process is None:
        raise RuntimeError("Consul is not running")
    return agent.process.pid


def raft_entries(agent: Agent) -> int:
    """Return the index of Consul's Raft log: one entry per transaction, plus a few of Consul's own."""
    with urlopen(f"http://{agent.address}/v1/agent/self") as response:
        return int(json.load(response)["Stats"]["raft"]["last_log_index"])


def stored_bytes(agent: Agent) -> int:
    """Return the total size of all keys and values in Consul."""
    with urlopen(f"http://{agent.address}/v1/kv/?recurse") as response:
        pairs = json.load(response)
    return sum(len(pair["Key"]) + len(pair["Value"] or "") * 3 // 4 for pair in pairs)
