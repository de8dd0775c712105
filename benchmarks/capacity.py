"""What one run costs each part, and what waiting costs: amounts that hold on a busy machine, too."""

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

from benchmarks.meters import Group, cpu_seconds, group, memory_bytes
from benchmarks.report import Amount, Section
from benchmarks.service import POOL_SIZE, ConsulWarmSync, Service, running_service
from benchmarks.waiters import callers
from tests.support.api import Api
from tests.support.consul import Agent, durable_agent
from tests.support.daemon import own_daemon

RUNS = 40
IDLE_SECONDS = 10.0
WAITERS = 1000
MIB = 1024 * 1024
SLEEP = "import time; time.sleep(3600)"
SETTINGS = {"run_network": "none", "setup_network": "none", "stop_timeout": "0"}


@frozen(kw_only=True)
class Engine:
    """A Docker engine of our own: its own processes are in one group, its sandboxes in another."""

    host: str
    programs: Group
    sandboxes: Group


@frozen
class Parts:
    """What is measured."""

    engine: Engine
    agent: Agent
    service: Service

    def used(self) -> Mapping[str, float]:
        """Processor seconds of each part so far, and entries in Consul's log."""
        return {
            "server": cpu_seconds(self.service.server.process.pid),
            "Docker": self.engine.programs.cpu_seconds(),
            "sandboxes": self.engine.sandboxes.cpu_seconds(),
            "Consul": cpu_seconds(_pid(self.agent)),
            "log entries": entries(self.agent),
        }

    def spent(self, work: Callable[[], None]) -> Mapping[str, float]:
        """What `work` costs, until all is quiet again."""
        self.service.settle()
        before = self.used()
        work()
        self.service.settle()
        return {name: now - before[name] for name, now in self.used().items()}


def measure_capacity(image: str) -> Section:
    """Takes about a minute and a half."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pyexec-bench-")))
        agent = stack.enter_context(durable_agent(directory / "consul"))
        engine = stack.enter_context(_engine(image))
        settings = {**SETTINGS, "consul_addr": agent.address, "docker_host": engine.host}
        service = stack.enter_context(running_service(image, **settings))
        parts = Parts(engine, agent, service)
        row = ConsulWarmSync(service)
        row.run()
        amounts = [*_memory_of_waiting(parts), *_costs_of_runs(parts, row)]
        amounts += asyncio.run(_memory_of_callers(service))
    return Section(title="Capacity: what a run costs, what waiting costs", amounts=amounts)


def _memory_of_waiting(parts: Parts) -> list[Amount]:
    """Of a replica and of sandboxes, when nothing goes on."""
    parts.service.settle()
    replica = memory_bytes(parts.service.server.process.pid) / MIB
    shims = sum(memory_bytes(pid) for pid in _shims(parts.engine.programs)) / MIB
    sandboxes = parts.engine.sandboxes.memory_bytes() / MIB
    return [
        Amount(name="memory of an idle replica", value=replica, unit="MiB", at_most=120),
        Amount(name="memory of a warm sandbox", value=sandboxes / POOL_SIZE, unit="MiB", at_most=32),
        Amount(name="Docker's own process for it", value=shims / POOL_SIZE, unit="MiB", at_most=32),
    ]


def _costs_of_runs(parts: Parts, row: ConsulWarmSync) -> list[Amount]:
    """Of an idle second, and of one run: its sandbox's start and removal are in it."""
    kept = stored_bytes(parts.agent)
    idle = parts.spent(lambda: time.sleep(IDLE_SECONDS))
    began = time.monotonic()
    spent = parts.spent(lambda: _run(row))
    seconds = time.monotonic() - began
    per_run = {name: (spent[name] - idle[name] / IDLE_SECONDS * seconds) / RUNS for name in spent}
    bounds = {"server": 40, "Docker": 500, "sandboxes": 400, "Consul": 20}
    costs = [
        Amount(name=f"processor time of a run, {name}", value=per_run[name] * 1000, unit="ms", at_most=most)
        for name, most in bounds.items()
    ]
    idle_ms = {name: idle[name] / IDLE_SECONDS * 1000 for name in ("server", "Consul")}
    return [
        *costs,
        Amount(name="transactions of a run", value=round(per_run["log entries"]), unit="", at_most=2),
        Amount(
            name="bytes in Consul of a run",
            value=(stored_bytes(parts.agent) - kept) / RUNS,
            unit="",
            at_most=4096,
        ),
        Amount(name="an idle second, server", value=idle_ms["server"], unit="ms", at_most=50),
        Amount(name="an idle second, Consul", value=idle_ms["Consul"], unit="ms", at_most=100),
    ]


def _run(row: ConsulWarmSync) -> None:
    for _ in range(RUNS):
        row.run()


async def _memory_of_callers(service: Service) -> list[Amount]:
    """Of callers who wait by long polls for one execution, in the server."""
    pid = service.server.process.pid
    async with callers(service.server.url) as (api, sent):
        service.count_run()
        execution_id = await api.accepted(SLEEP)
        before = memory_bytes(pid)
        async with anyio.create_task_group() as tasks:
            for number in range(WAITERS):
                tasks.start_soon(_wait, api, execution_id, name=f"waiter {number}")
            for _ in range(WAITERS):
                await sent.acquire()
            await api.get(f"/api/v1/executions/{execution_id}")  # it stands in line behind all of theirs
            each = (memory_bytes(pid) - before) / WAITERS / 1024
            await api.kill(execution_id)
    return [Amount(name="memory of a waiting caller", value=each, unit="KiB", at_most=128)]


async def _wait(api: Api, execution_id: str) -> None:
    await api.get(f"/api/v1/executions/{execution_id}?wait=60", trace_request_ctx={"waiter": True})


@contextmanager
def _engine(image: str) -> Iterator[Engine]:
    name = f"pyexec-bench-{os.getpid()}"
    with (
        group(name, with_groups=True),
        group(f"{name}/engine") as programs,
        group(f"{name}/sandboxes", with_groups=True) as sandboxes,
        own_daemon(image, f"--cgroup-parent=/{sandboxes.name}") as daemon,
    ):
        if daemon.process is None or daemon.containerd is None:
            raise RuntimeError("the Docker engine does not run")
        for process in (daemon.process, daemon.containerd):
            programs.add(process.pid)
        yield Engine(host=daemon.host, programs=programs, sandboxes=sandboxes)


def _shims(programs: Group) -> Iterator[int]:
    """Docker's processes that stand beside one container each."""
    for pid in programs.pids():
        if b"containerd-shim" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]:
            yield pid


def _pid(agent: Agent) -> int:
    if agent.process is None:
        raise RuntimeError("Consul does not run")
    return agent.process.pid


def entries(agent: Agent) -> int:
    """How many entries Consul's own log has had: one for each transaction, and now and then one of its own."""
    with urlopen(f"http://{agent.address}/v1/agent/self") as answer:
        return int(json.load(answer)["Stats"]["raft"]["last_log_index"])


def stored_bytes(agent: Agent) -> int:
    """Keys and values of everything that is in Consul."""
    with urlopen(f"http://{agent.address}/v1/kv/?recurse") as answer:
        pairs = json.load(answer)
    return sum(len(pair["Key"]) + len(pair["Value"] or "") * 3 // 4 for pair in pairs)
