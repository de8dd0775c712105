"""Sandboxes that serve many programs: the memory of idle ones, and what grows over thousands of runs."""

import json
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from benchmarks.capacity import DedicatedEngine, dedicated_engine
from benchmarks.latency import WarmSync
from benchmarks.report import Measurement, Section
from benchmarks.service import Service, running_service, tar_of
from benchmarks.throughput import Run, in_threads
from benchmarks.timing import print_progress

IDLE_SANDBOXES = 30
IDLE_MIB = 15.0
SLEEP = b'import time; time.sleep(2); print("hello")\n'
"""Longer than the pool waits for a sandbox to come back, so that each run gets a sandbox of its own."""
RUNS = 10_000
WARM_UP_RUNS = 2_200
"""By then, the first sandboxes have been replaced."""
IDLE_CONNECTION_SECONDS = 20
"""After this time without requests, the server has closed its idle connections to Docker."""
BATCH_RUNS = 500
SANDBOXES = 2
MIB = 1024 * 1024
GROWTH_MIB = 1.0
"""The kernel counts the memory of a control group in batches for each processor, so equal states differ by less than
this."""
LOG_MIB = 1.0
"""A run leaves a few hundred bytes in the container's log, and a sandbox is removed after 1,000 runs."""
SETTINGS = {
    "run_network": "none",
    "setup_network": "none",
    "max_total_memory_mb": str(1024 * 1024),
}


@frozen(kw_only=True)
class State:
    """Resources that the sandboxes hold while nothing runs."""

    memory_bytes: float
    """Memory of one sandbox, on average."""
    guest_descriptors: int
    """Open descriptors of all processes of the fullest sandbox."""
    log_bytes: int
    """Size on disk of the largest container log."""


def measure_sandbox_reuse(image: str) -> Section:
    """Measure idle sandboxes, then the growth over thousands of runs. Takes about eight minutes. Needs root."""
    with dedicated_engine(image) as engine:
        measurements = [_idle_memory(engine, image), *_growth(engine, image)]
    return Section(title="Reuse of sandboxes", measurements=measurements)


def _idle_memory(engine: DedicatedEngine, image: str) -> Measurement:
    """Measure idle sandboxes each of which has run a program."""
    count = str(IDLE_SANDBOXES)
    settings = {**SETTINGS, "docker_host": engine.host, "warm_pool": count, "max_concurrent": count}
    with running_service(image, **settings) as service:
        with service.more_connections(IDLE_SANDBOXES) as connections:
            _run_all([Slow(connection).run_now for connection in connections])
        service.wait_until_idle()
        memory = engine.sandboxes.memory_bytes() / IDLE_SANDBOXES / MIB
    return Measurement(
        name=f"memory of each of {count} idle reused sandboxes", value=memory, unit="MiB", at_most=IDLE_MIB
    )


class Slow(WarmSync):
    """A run that overlaps with all others of the same moment."""

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self._archive = tar_of("main.py", SLEEP)


def _growth(engine: DedicatedEngine, image: str) -> Sequence[Measurement]:
    """Compare the states after each batch of runs with the state after the first runs."""
    count = str(SANDBOXES)
    settings = {**SETTINGS, "docker_host": engine.host, "warm_pool": count, "max_concurrent": count}
    with running_service(image, **settings) as service, service.more_connections(SANDBOXES) as connections:
        runs = [WarmSync(connection).run_now for connection in connections]
        _run_many(runs, WARM_UP_RUNS)
        first, first_descriptors = _state(engine, service), _descriptors_of_idle(service)
        states = []
        for done in range(BATCH_RUNS, RUNS + 1, BATCH_RUNS):
            _run_many(runs, BATCH_RUNS)
            states.append(_state(engine, service))
            print_progress(f"{done} of {RUNS} runs")
        server_growth = _descriptors_of_idle(service) - first_descriptors
    growth = {
        "guest memory": (max(s.memory_bytes for s in states) - first.memory_bytes) / MIB,
        "guest descriptors": max(s.guest_descriptors for s in states) - first.guest_descriptors,
        "server descriptors": server_growth,
    }
    units = {"guest memory": "MiB"}
    bounds = {"guest memory": GROWTH_MIB}
    return [
        *(
            Measurement(
                name=f"growth over {RUNS} runs, {name}",
                value=value,
                unit=units.get(name, ""),
                at_most=bounds.get(name, 0.0),
            )
            for name, value in growth.items()
        ),
        Measurement(
            name=f"largest container log over {RUNS} runs",
            value=max(s.log_bytes for s in states) / MIB,
            unit="MiB",
            at_most=LOG_MIB,
        ),
    ]


def _run_many(runs: Sequence[Run], count: int) -> None:
    def call(run: Run) -> None:
        for _ in range(count // len(runs)):
            run()

    in_threads(call, runs)


def _run_all(runs: Sequence[Run]) -> None:
    in_threads(lambda run: run(), runs)


def _state(engine: DedicatedEngine, service: Service) -> State:
    service.wait_until_idle()
    containers = json.loads(_docker(engine, "inspect", *_docker(engine, "ps", "-q").split()))
    root = Path(_docker(engine, "info", "--format", "{{.DockerRootDir}}").strip())
    return State(
        memory_bytes=engine.sandboxes.memory_bytes() / len(containers),
        guest_descriptors=max(_guest_descriptors(container["State"]["Pid"]) for container in containers),
        log_bytes=max(_log_size(root, container) for container in containers),
    )


def _docker(engine: DedicatedEngine, *arguments: str) -> str:
    command = ["docker", "--host", engine.host, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _guest_descriptors(supervisor: int) -> int:
    """Count the open descriptors of the supervisor and of its prestarted interpreter."""
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    return sum(map(_descriptors, [supervisor, *map(int, children)]))


def _descriptors_of_idle(service: Service) -> int:
    """Count the open descriptors of the server once it has closed its idle connections."""
    time.sleep(IDLE_CONNECTION_SECONDS)
    return _descriptors(service.server.process.pid)


def _descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def _log_size(root: Path, container: dict[str, Any]) -> int:
    """Return the size of the log on disk, which the engine's driver `local` keeps in a folder of the container."""
    folder = root / "containers" / container["Id"] / "local-logs"
    return sum(file.stat().st_size for file in folder.iterdir())
