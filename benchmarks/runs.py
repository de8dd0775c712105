"""Small runs, one at a time: alone, with Consul, beside bare `python3` and `docker run --rm`."""

import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks.bare import BarePython, DockerRun, bare_python
from benchmarks.report import Ratio, Section, Surplus
from benchmarks.samples import Row, measure
from benchmarks.service import (
    POOL_SIZE,
    AsyncResult,
    BackToBackSync,
    Burst,
    ColdSync,
    ConsulWarmSync,
    Eval,
    WarmSync,
    running_service,
)
from tests.support.consul import durable_agent

ROUNDS = 20
BARE, DOCKER = BarePython.name, DockerRun.name
BOUNDS = (
    Ratio(row=WarmSync.name, reference=BARE, factor=1.2),
    Ratio(row=WarmSync.name, reference=DOCKER, factor=1 / 15),
    Ratio(row=AsyncResult.name, reference=WarmSync.name, factor=1.3),
    Surplus(row=ConsulWarmSync.name, reference=WarmSync.name, milliseconds=10),
)


def measure_runs(image: str) -> Section:
    """Takes about three minutes."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pyexec-bench-")))
        bare = stack.enter_context(bare_python(image))
        agent = stack.enter_context(durable_agent(directory / "consul"))
        service = stack.enter_context(running_service(image))
        with_consul = stack.enter_context(running_service(image, consul_addr=agent.address))
        warm, consul_warm = WarmSync(service), ConsulWarmSync(with_consul)
        for row in (bare, warm, consul_warm):
            row.run()
        rows: list[tuple[Row, int]] = [
            (bare, 4),
            (warm, 2),
            (consul_warm, 2),
            (Eval(service), 2),
            (AsyncResult(service), 2),
            (Burst(stack.enter_context(service.others(POOL_SIZE))), 1),
            (BackToBackSync(service), 3),
            (ColdSync(service), 1),
            (DockerRun(image), 1),
        ]

        def settle() -> None:
            service.settle()
            with_consul.settle()

        samples = measure(rows, ROUNDS, settle)
    return Section(title="Small runs", samples=samples, references=(BARE, DOCKER), bounds=BOUNDS)
