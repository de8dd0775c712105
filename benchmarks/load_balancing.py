"""Load balancing: many runs submitted at once to one of three servers on Consul."""

import asyncio
import math
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import anyio

from benchmarks.report import Measurement, Section
from benchmarks.timing import Samples
from tests.support.api import Api, api_of
from tests.support.consul import durable_agent
from tests.support.server import running_server

RUNS = 200
REPLICAS = 3
SLOTS = 4
RUN_SECONDS = 4
"""Long enough that container starts (a few per second on two processors) are not the bottleneck."""
FACTOR = 1.2
IDEAL_SECONDS = math.ceil(RUNS / (REPLICAS * SLOTS)) * RUN_SECONDS
PROGRAM = f"import time; time.sleep({RUN_SECONDS})"
SETTINGS = {
    "max_concurrent": str(SLOTS),
    "warm_pool": str(SLOTS),
    "max_queued": str(RUNS),
    "default_memory_mb": "64",
    "default_disk_mb": "16",
}


def measure_load_balancing(image: str) -> Section:
    """Measure the time until all runs have ended. Takes about a minute and a half."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pyexec-bench-")))
        agent = stack.enter_context(durable_agent(directory / "consul"))
        servers = [
            stack.enter_context(
                running_server(directory / f"data-{n}", image, consul_addr=agent.address, **SETTINGS)
            )
            for n in range(REPLICAS)
        ]
        seconds, runs = asyncio.run(_run_all(servers[0].url))
    return Section(
        title=f"{RUNS} runs of {RUN_SECONDS} s, submitted at once to one of {REPLICAS} servers with {SLOTS} slots each",
        samples={"run, start to end": runs},
        measurements=[
            Measurement(
                name=f"time until all have ended / ideal of {IDEAL_SECONDS} s",
                value=seconds / IDEAL_SECONDS,
                unit="×",
                at_most=FACTOR,
            )
        ],
    )


async def _run_all(url: str) -> tuple[float, Samples]:
    """Return the seconds from the first submission to the last end, and the time of each run."""
    runs = Samples()
    async with api_of(url, connector=aiohttp.TCPConnector(limit=0)) as api:
        started = time.perf_counter()
        async with anyio.create_task_group() as tasks:
            for number in range(RUNS):
                tasks.start_soon(_run, api, runs, name=f"run {number}")
        return time.perf_counter() - started, runs


async def _run(api: Api, runs: Samples) -> None:
    result = await api.ended(await api.accepted(PROGRAM))
    if result["status"] != "completed":
        raise RuntimeError(f"a run did not complete: {result}")
    runs.seconds.append(result["timings_ms"]["run"] / 1000)
