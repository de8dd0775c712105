"""Small runs, one at a time: through the service, with Consul, under bare `python3`, and with `docker run --rm`."""

import itertools
import json
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.baselines import HELLO, BarePython, DockerRun, bare_python
from benchmarks.report import DifferenceBound, RatioBound, Section
from benchmarks.service import POOL_SIZE, Service, running_service, tar_of
from benchmarks.timing import Row, measure, timed
from tests.support.consul import durable_agent

ROUNDS = 20


class WarmSync:
    """A synchronous run on an otherwise idle server with a full pool."""

    name = "warm sync"
    metadata = b"{}"

    def __init__(self, service: Service) -> None:
        self._service = service
        self._archive = tar_of("main.py", HELLO)

    def run(self) -> float:
        self._service.wait_until_idle()
        return self.run_now()

    def run_now(self) -> float:
        """Run without waiting for an idle server."""
        return self._checked(self._service.execute(self.metadata, self._archive))

    def _checked(self, timed_result: tuple[float, Any]) -> float:
        seconds, result = timed_result
        if result.get("stdout") != "hello\n" or result["status"] != "completed":
            raise RuntimeError(f"the run did not print hello: {result}")
        return seconds


class ConsulWarmSync(WarmSync):
    """The same on a server with its event log in Consul."""

    name = "warm sync, Consul"


class BackToBackSync(WarmSync):
    """Synchronous runs without a pause between them, while the pool is refilled."""

    name = "back-to-back sync"

    def run(self) -> float:
        return self.run_now()


class ColdSync(WarmSync):
    """A synchronous run with a memory limit that the pool has no sandbox for."""

    name = "cold sync"

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self._sizes = itertools.count(512)

    def run_now(self) -> float:
        self.metadata = json.dumps({"config": {"memory_mb": next(self._sizes)}}).encode()
        return super().run_now()


class Eval(WarmSync):
    """The same program through `/api/v1/eval`."""

    name = "eval"

    def run_now(self) -> float:
        body = json.dumps({"code": HELLO.decode()}).encode()
        return self._checked(self._service.post("/api/v1/eval", body, {"Content-Type": "application/json"}))


class AsyncResult(WarmSync):
    """An asynchronous run, and one long poll for its result."""

    name = "async, to its result"

    def run_now(self) -> float:
        return self._checked(self._service.execute_async(self.metadata, self._archive))


class Burst(WarmSync):
    """Simultaneous runs, one per sandbox of the pool, timed until the last one ends."""

    name = f"burst of {POOL_SIZE}"

    def __init__(self, services: Sequence[Service]) -> None:
        super().__init__(services[0])
        self._callers = [WarmSync(service) for service in services]

    def run_now(self) -> float:
        with timed() as watch, ThreadPoolExecutor(len(self._callers)) as threads:
            for run in [threads.submit(caller.run_now) for caller in self._callers]:
                run.result()
        return watch.seconds


BARE, DOCKER = BarePython.name, DockerRun.name
BOUNDS = (
    RatioBound(row=WarmSync.name, reference=BARE, factor=1.0),
    RatioBound(row=WarmSync.name, reference=DOCKER, factor=1 / 15),
    RatioBound(row=AsyncResult.name, reference=WarmSync.name, factor=1.3),
    DifferenceBound(row=ConsulWarmSync.name, reference=WarmSync.name, milliseconds=10),
)


def measure_latency(image: str) -> Section:
    """Measure the latency of small runs. Takes about three minutes."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pyexec-bench-")))
        bare = stack.enter_context(bare_python(image))
        agent = stack.enter_context(durable_agent(directory / "consul"))
        service = stack.enter_context(running_service(image))
        with_consul = stack.enter_context(running_service(image, consul_addr=agent.address))
        warm, consul_warm = WarmSync(service), ConsulWarmSync(with_consul)
        for row in (bare, warm, consul_warm):  # the first run of each is not counted
            row.run()
        rows: list[tuple[Row, int]] = [
            (bare, 4),
            (warm, 2),
            (consul_warm, 2),
            (Eval(service), 2),
            (AsyncResult(service), 2),
            (Burst(stack.enter_context(service.more_connections(POOL_SIZE))), 1),
            (BackToBackSync(service), 3),
            (ColdSync(service), 1),
            (DockerRun(image), 1),
        ]

        def wait_until_idle() -> None:
            service.wait_until_idle()
            with_consul.wait_until_idle()

        samples = measure(rows, ROUNDS, wait_until_idle)
    return Section(title="Small runs", samples=samples, references=(BARE, DOCKER), bounds=BOUNDS)
